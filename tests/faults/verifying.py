"""What must hold of a service's log and state, whatever was done to it: all that was acknowledged
is there, once, and is learned from once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from itertools import chain

import httpx
import redis

from offline_eval.log import archive
from offline_eval.log.reading import read_rows
from offline_eval.log.segments import STREAMS, order
from policy.values.snapshot import unpack
from serving.store.connecting.clients import blocking
from serving.store.keys import Entry, Keys
from serving.store.learning import LearnerStore
from tests.faults.traffic import PATIENCE_S, Ledger, Traffic
from tests.servers import assert_same_state, fold_again, until

COMPONENTS = ("quality", "latency_ms", "cost_usd")


def verify(ledger: Ledger, url: str, path: str, *versions: str) -> None:
    """The whole of it: of the store at `url`, the log at `path`, and the versions that learned
    from the first event on, by default the first."""
    assert ledger.decisions
    assert ledger.outcomes.keys() == ledger.decisions.keys()
    raw = blocking(url, Keys("default").state)
    with closing(raw), closing(LearnerStore(url, "default")) as store:
        until(lambda: archived(raw, path), "the archiver comes to the end", PATIENCE_S)
        assert_nothing_is_lost(raw, path, ledger)
        assert_each_outcome_is_there_once(path, ledger)
        for version in versions or ("1",):
            assert_learned_once([*archive.events(path, "default")], store, version)


def archived(raw: redis.Redis, path: str) -> bool:
    """Whether all that is in the streams is in the log."""
    at = archive.position(path, "default")
    ends = [raw.xrevrange(f"pm:{{default}}:{name}", count=1)[0][0] for name in STREAMS]
    return [entry.decode() for entry in ends] == [at.decisions, at.outcomes]


def assert_nothing_is_lost(raw: redis.Redis, path: str, ledger: Ledger) -> None:
    """Record and log hold each acknowledged decision as it was answered; the log holds it once,
    with its outcome."""
    logged = list(read_rows(path))
    made = [row.decision for row in logged]
    assert {d.decision_id: (d.arm, d.propensity) for d in made} == ledger.decisions
    assert len(logged) == len(ledger.decisions)
    for row in logged:
        told = {name: getattr(row.outcome, name) for name in COMPONENTS}
        late = ledger.late.get(row.decision.decision_id, set())
        known = ledger.outcomes[row.decision.decision_id].items()
        assert told == {name: None if name in late else value for name, value in known}
    for decision_id, (arm, propensity) in ledger.decisions.items():
        fields = raw.hgetall(f"pm:{{default}}:decision:{decision_id}")
        assert (fields[b"arm"].decode(), float(fields[b"propensity"])) == (arm, propensity)
        stored = {name: float(fields[name.encode()]) for name in COMPONENTS}
        assert stored == ledger.outcomes[decision_id]


def assert_each_outcome_is_there_once(path: str, ledger: Ledger) -> None:
    """What a learner folds is what was acknowledged, no component of a decision twice."""
    found: dict[str, dict[str, float]] = {}
    for _, event in chain(*archive.events(path, "default")):
        seen = found.setdefault(event[b"decision_id"].decode(), {})
        part = {name: float(event[name.encode()]) for name in COMPONENTS if name.encode() in event}
        assert part
        assert not part.keys() & seen.keys()
        seen.update(part)
    assert found == ledger.outcomes


def assert_learned_once(
    events: Sequence[list[Entry]], store: LearnerStore, version: str = "1"
) -> None:
    """The learner comes to the end of the stream, with the state of an undisturbed fold."""
    expected = fold_again(store, events, version)
    until(
        lambda: _position(store.checkpoint(version)) == _position(expected),
        "the learner comes to the end of the stream",
        PATIENCE_S,
    )
    assert_same_state(store.checkpoint(version), expected)
    assert unpack(expected).header.events == sum(map(len, events))


def _position(checkpoint: bytes | None) -> str:
    return "" if checkpoint is None else unpack(checkpoint).header.position


class Recovery:
    """How long it takes, from now on and under traffic, until a request that is sent from now on is
    acknowledged, and until an outcome that is reported from now on is in a snapshot that serves
    and in the log."""

    def __init__(self, ledger: Ledger, http: httpx.Client, path: str) -> None:
        self._ledger, self._http, self._path = ledger, http, path
        self.restart()

    def restart(self) -> None:
        """Count from here: the fault is over."""
        self._since, self._since_ms = time.monotonic(), time.time_ns() // 1_000_000
        self._reported = self._ledger.reported + Traffic.clients
        self._at = self._archived()

    def _archived(self) -> tuple[int, int]:
        return order(archive.position(self._path, "default").outcomes)

    def shift(self, ahead_s: int) -> None:
        """The service's clock is so far ahead of the machine's."""
        self._since_ms += 1_000 * ahead_s

    def took(self) -> dict[str, float]:
        """Of each, in s; waits for all of them."""
        took: dict[str, float] = {}

        def came() -> bool:
            for name, sign in self._signs().items():
                if sign and name not in took:
                    took[name] = round(time.monotonic() - self._since, 2)
            return len(took) == 3

        until(came, "all of it goes on", PATIENCE_S)
        return took

    def _signs(self) -> dict[str, bool]:
        at = self._archived()
        return {
            "serving": self._ledger.last_sent > self._since,
            "learning": _learned(self._http) > self._reported,
            "archiving": at > self._at and at[0] > self._since_ms,
        }


def _learned(http: httpx.Client) -> int:
    """The events that serving's snapshot knows; 0 where it doesn't answer."""
    try:
        return int(http.get("/policies/default").json()["events"])
    except httpx.TransportError:
        return 0
