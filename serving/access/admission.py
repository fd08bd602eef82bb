"""How much a process has under way, against how much it may have. Knows no server and no clock.

What goes beyond is refused at once, before anything of it is parsed: a queue would only make all
wait longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

WEIGHT_BYTES = 16_384  # of a body, that count as one request more
LARGEST_PART = 4  # no request counts as more than this part of what may be under way
UPLOADS = 8  # large bodies that may be coming in
RETRY_AFTER_S = 1


class Admission:
    """Counts requests, those with large bodies as several."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.under_way = 0
        self.uploads = 0
        self.refusal = _too_many(most)

    def request(self, size: int) -> Place | None:
        """A place for a request whose body of so many bytes is here; None where all are taken.

        The heaviest gets one as easily as any: what is under way may be more than `most` by it.
        """
        if self.under_way >= self.most:
            return None
        weight = self._weight(size)
        self.under_way += weight
        return Place(self, weight)

    def upload(self) -> Place | None:
        """A place for a request with a large body that is still coming in."""
        if self.under_way >= self.most or self.uploads >= UPLOADS:
            return None
        self.uploads += 1
        return Place(self, 0)

    def _weight(self, size: int) -> int:
        return 1 + min(size // WEIGHT_BYTES, self.most // LARGEST_PART)


@dataclass(slots=True, eq=False)
class Place:
    """What one request takes; nothing but an upload while its body is coming in."""

    admission: Admission
    weight: int

    def received(self, size: int) -> None:
        """An upload is complete."""
        self.admission.uploads -= 1
        self.weight = self.admission._weight(size)
        self.admission.under_way += self.weight

    def leave(self) -> None:
        if self.weight:
            self.admission.under_way -= self.weight
        else:
            self.admission.uploads -= 1


def refusal(status: int, reason: str, name: str, detail: str) -> tuple[bytes, bytes]:
    """Head and body of an answer that is a problem, without the empty line between them."""
    problem = {"type": f"/problems/{name}", "title": reason, "status": status, "detail": detail}
    body = orjson.dumps(problem)
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\n"
    )
    return head.encode(), body


def _too_many(most: int) -> tuple[bytes, bytes]:
    detail = f"{most} requests are under way, as many as may be: come back in {RETRY_AFTER_S} s"
    head, body = refusal(429, "Too Many Requests", "overloaded", detail)
    return head + f"retry-after: {RETRY_AFTER_S}\r\n".encode(), body
