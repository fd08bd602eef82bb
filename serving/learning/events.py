"""Outcome events of the stream -> what value models and scoreboards take, as columns.

Knows what an event's fields mean, and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from features.lexicon import TASK_INDEX
from policy.arms.catalog import Catalog, Index
from policy.comparing import ShadowBatch, values_of
from policy.objective import Scales
from policy.records import NO_LESSON, CorrectionBatch, OutcomeBatch, Vector

COMPONENTS = (b"quality", b"latency_ms", b"cost_usd")
_NO_LESSON = frozenset(kind.encode() for kind in NO_LESSON)

Event = dict[bytes, bytes]


def is_correction(event: Event) -> bool:
    return b"correction" in event


def as_seen(event: Event, encoder: str) -> Event | None:
    """An event with its context as this encoder made it; None where it made none."""
    if event[b"encoder"].decode() == encoder:
        return event
    if b"challenger_x" in event and orjson.loads(event[b"shadow"])["encoder"] == encoder:
        return event | {b"x": event[b"challenger_x"]}
    return None


def shadow_batch_of(
    shadowed: Sequence[tuple[Event, Mapping[str, Any]]], scales: Scales
) -> ShadowBatch:
    """Stream entries with what they say of their challenger, as columns."""
    events, shadows = [event for event, _ in shadowed], [shadow for _, shadow in shadowed]

    def column(name: str) -> Vector:
        return np.array([float(shadow[name]) for shadow in shadows])

    quality, latency_ms, cost_usd = _components(events)
    return ShadowBatch(
        champions=[event[b"version"].decode() for event in events],
        first=np.array([not event[b"earlier"] for event in events]),
        evaluable=np.array([event[b"arm"] == event[b"decided_arm"] for event in events]),
        propensity=np.array([float(event[b"propensity"]) for event in events]),
        challenger=column("propensity"),
        champion=column("champion_propensity"),
        top=column("top"),
        support=column("support"),
        values=values_of(quality, latency_ms, cost_usd, _failed(events), _settled(events), scales),
    )


def _components(events: Sequence[Event]) -> list[Vector]:
    return [np.array([float(event.get(name, b"nan")) for event in events]) for name in COMPONENTS]


def _failed(events: Sequence[Event]) -> NDArray[np.bool_]:
    return np.array([b"error" in event for event in events], dtype=bool)


def spared(events: Sequence[Event]) -> NDArray[np.bool_]:
    """(n,): which events report an error that says nothing of the arm's quality."""
    return np.array([event.get(b"error") in _NO_LESSON for event in events], dtype=bool)


def _settled(events: Sequence[Event]) -> NDArray[np.bool_]:
    """(n, 3): which components an earlier event of the same decision has taught; of a correction,
    which ones no event taught that could be taken back: an error had settled them before."""
    return np.array([settled(event) for event in events]).reshape(-1, len(COMPONENTS))


def settled(event: Event) -> list[bool]:
    """Of one event, likewise."""
    if is_correction(event):
        return [name not in event[b"taught"] for name in COMPONENTS]
    earlier = event[b"earlier"]
    return [name in earlier or b"error" in earlier for name in COMPONENTS]


def batch_of(events: Sequence[Event], d: int, catalog: Callable[[str], Catalog]) -> OutcomeBatch:
    """Stream entries as columns; x is raw float32 of d numbers, `catalog` reads a revision."""
    quality, latency_ms, cost_usd = _components(events)
    return OutcomeBatch(
        arms=[event[b"arm"].decode() for event in events],
        x=np.frombuffer(b"".join([event[b"x"] for event in events]), np.float32).reshape(-1, d),
        quality=quality,
        latency_ms=latency_ms,
        cost_usd=cost_usd,
        error=_failed(events),
        settled=_settled(events),
        list_cost_usd=np.array([float(event[b"list_cost_usd"]) for event in events]),
        propensity=np.array([_propensity(event) for event in events]),
        catalogs=[catalog(event[b"catalog"].decode()) for event in events],
        eligible=[event[b"eligible"] for event in events],
        asked=_asked(events) if any(b"asked" in event for event in events) else None,
        query=_query(events) if any(b"query" in event for event in events) else None,
    )


def _query(events: Sequence[Event]) -> Index:
    """(n,) events that stand together with the same `query` have one number, others their own."""
    names = [event.get(b"query") for event in events]
    new = [name is None or name != before for before, name in pairwise([None, *names])]
    return np.cumsum(new)


def _asked(events: Sequence[Event]) -> Index:
    """(n, 3) the task type's position, prompt and output tokens; -1 where an event has none."""
    asked = np.full((len(events), 3), -1, dtype=np.intp)
    for row, event in enumerate(events):
        if b"asked" in event:
            task, prompt_tokens, output_tokens = event[b"asked"].decode().split(" ")
            asked[row] = TASK_INDEX[task], int(prompt_tokens), int(output_tokens)
    return asked


def corrections_of(
    events: Sequence[Event], encoder: str, d: int, catalog: Callable[[str], Catalog]
) -> CorrectionBatch:
    """Stream entries that are corrections, as a model with this encoder takes them."""
    new = batch_of(events, d, catalog)
    quality, latency_ms, cost_usd = _components([overruled(event) for event in events])
    old = replace(new, quality=quality, latency_ms=latency_ms, cost_usd=cost_usd)
    since = [orjson.loads(event[b"taught"])[encoder] for event in events]
    names = [name.decode() for name in COMPONENTS]
    counts = [[counted.get(name, 0) for name in names] for counted in since]
    return CorrectionBatch(old, new, np.array(counts, dtype=np.intp))


def overruled(event: Event) -> Event:
    """A correction with the values that it replaced in the place of the new ones."""
    return event | {name: event[b"old_" + name] for name in COMPONENTS if name in event}


def _propensity(event: Event) -> float:
    drawn = event[b"arm"] == event[b"decided_arm"]
    return float(event[b"propensity"]) if drawn else float("nan")
