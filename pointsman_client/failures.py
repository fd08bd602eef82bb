"""What an exception of a model call was, in the words that the service knows.

By its looks, whichever library it is of: an HTTP status that it or its response has, then the names
of its classes.
"""

from __future__ import annotations

from typing import Any

KINDS = {400: "bad_request", 401: "auth", 403: "auth", 408: "timeout", 413: "bad_request"}
KINDS |= {422: "bad_request", 429: "rate_limited"}
NAMES = (("Timeout", "timeout"), ("Connect", "connection"))  # of classes: ReadTimeout, ConnectError


def kind(failure: BaseException) -> str:
    """A word that tells whether the arm is to be called again, or the exception's own name.

    >>> kind(TimeoutError()), kind(ConnectionRefusedError()), kind(ZeroDivisionError())
    ('timeout', 'connection', 'ZeroDivisionError')
    """
    status = _status(failure)
    if status is not None and (status in KINDS or status >= 500):
        return KINDS.get(status, "server_error")
    classes = [one.__name__ for one in type(failure).__mro__]
    for part, word in NAMES:
        if any(part in name for name in classes):
            return word
    return type(failure).__name__


def retry_after_s(failure: BaseException) -> float | None:
    """How long a rate limit asks to be left alone; None where it doesn't say, or in a date."""
    headers: Any = getattr(getattr(failure, "response", failure), "headers", None)
    try:
        return float(headers["retry-after"]) if kind(failure) == "rate_limited" else None
    except (KeyError, TypeError, ValueError):
        return None


def _status(failure: BaseException) -> int | None:
    for holder in (failure, getattr(failure, "response", None)):
        for name in ("status_code", "status", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None
