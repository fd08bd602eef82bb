"""Events of decisions with several calls: each call as an event of its own arm, as value models
take them, and the whole as what plans learn from. Pure functions of the events' order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import orjson

from policy.objective import Scales, components
from policy.plans.attempts import Attempts, Lesson, lessons, residuals
from policy.plans.learned import PlanLearning
from policy.plans.plan import from_record, kind_of
from policy.records import OutcomeBatch, Vector
from serving.learning.events import COMPONENTS, Event, settled

_REPLACED = (*COMPONENTS, b"error", b"attempts", b"earlier_attempts", b"plan")


def has_calls(event: Event) -> bool:
    """Whether its calls teach, rather than the event itself."""
    return b"attempts" in event or b"earlier_attempts" in event or is_plan(event)


def is_plan(event: Event) -> bool:
    """Whether a plan was drawn."""
    return kind_of(event[b"decided_arm"].decode()) is not None


def taught(events: Sequence[Event], learned: PlanLearning, scales: Scales) -> Iterator[Event]:
    """The events that teach arms: an event with calls as one per call, and others as they are.
    What plans learn is added on the way."""
    for event in events:
        if not has_calls(event):
            yield event
            continue
        plan = from_record(orjson.loads(event[b"plan"])) if b"plan" in event else None
        known = event.get(b"attempts") or event.get(b"earlier_attempts")
        calls = Attempts((), None) if known is None else Attempts.of(orjson.loads(known))
        quality = float(event.get(b"quality", b"nan"))
        between = residuals(plan, calls, quality)
        told = list(lessons(plan, calls, quality, learned.slope))
        if plan is not None and event[b"arm"] == event[b"decided_arm"]:
            learned.add(plan, _components(event, scales))
        if between is not None and b"quality" in event:
            learned.compare(*between)
        if b"attempts" not in event:  # of calls that were told before, the answer's quality at most
            told = [_late(event, calls, told)]
        yield from (_as_event(event, lesson) for lesson in told)


def _late(event: Event, calls: Attempts, told: Sequence[Lesson]) -> Lesson:
    for one, lesson in zip(calls.attempts, told, strict=True):
        if one is calls.answer:
            return Lesson(lesson.arm, lesson.quality, list_cost_usd=lesson.list_cost_usd)
    first = from_record(orjson.loads(event[b"plan"])).arms[0] if b"plan" in event else None
    return Lesson(first or event[b"arm"].decode())


def _components(event: Event, scales: Scales) -> Vector:
    """(3,) what the whole came to; NaN is what isn't known, or came before."""
    quality, latency_ms, cost_usd = (float(event.get(name, b"nan")) for name in COMPONENTS)
    y = components(quality, latency_ms, cost_usd, b"error" in event, scales)[0]
    return np.where(settled(event), np.nan, y)


def _as_event(event: Event, lesson: Lesson) -> Event:
    own = {name: value for name, value in event.items() if name not in _REPLACED}
    own |= {
        b"arm": lesson.arm.encode(),
        b"list_cost_usd": repr(lesson.list_cost_usd).encode(),
        b"earlier": b"",
    }
    if b"attempts" in event:  # what comes later would be compared or not as batches happen to fall
        own[b"query"] = b"%b %d" % (event[b"decision_id"], lesson.query)
    values = zip(COMPONENTS, (lesson.quality, lesson.latency_ms, lesson.cost_usd), strict=True)
    own |= {name: repr(float(value)).encode() for name, value in values if not math.isnan(value)}
    if lesson.error is not None:
        own[b"error"] = lesson.error.encode()
    return own


def latencies(batch: OutcomeBatch) -> Vector:
    """(n,) of the calls that answered, as they came in."""
    left_out = batch.error | batch.settled[:, 1]
    return np.where(left_out, np.nan, batch.latency_ms)
