"""Silence as an answer: the quality of decisions whose reward window has closed without one.

The one part of learning that needs a clock, and it is an argument. What it finds becomes an event
of the outcomes stream, so that a fold of that stays a pure function of its order.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from policy.stored import Unreadable
from serving.store.archiving import ArchiverStore

AT_ONCE = 128  # decisions that one script call looks at: Redis does one thing at a time


def sweep(
    store: ArchiverStore, token: int, quality: float, now_ms: int, window_ms: int, before_ms: int
) -> int:
    """Give `quality` to the decisions stored before `before_ms` that lack one, from where the last
    sweep has ended; how many got it. Once per decision, whoever sweeps, however often.

    Raises
    ------
    StaleLease
        If another process has taken over meanwhile.
    Unreadable
        If an entry is damaged.
    """
    at, assumed = store.swept() or "0-0", 0
    while entries := store.entries("decisions", at, AT_ONCE, upto=str(before_ms - 1)):
        ids = [_id_of(*entry) for entry in entries]
        at = entries[-1][0]
        assumed += store.assume(ids, quality, at, now_ms, window_ms)
        store.keep(token)
    return assumed


def _id_of(entry: str, fields: Mapping[bytes, bytes]) -> str:
    try:
        return str(orjson.loads(fields[b"record"])["decision_id"])
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise Unreadable(f"entry {entry} of the decisions: {error!r}") from None
