"""The archiver: moves both streams of a policy from Redis to the log, each entry once.

A turn reads a batch, writes its files, then the position, and only then drops from the streams what
is archived and, of outcomes, what every checkpoint has learned. It may die between any two of these
steps: the next one starts from the position, and what lies beyond it is written again. Where
silence is an answer, it first gives it to the decisions whose window has closed, which stay in
their stream until then. It meets `serving` (the streams) and `offline_eval` (the files), which
don't know of each other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from offline_eval.log.archive import Archive
from offline_eval.log.segments import START, STREAMS, Position, order
from policy.config.schema import PolicyConfig
from policy.config.versions import read_config
from policy.values import models
from policy.values.snapshot import read_head
from serving.learning.missing import sweep
from serving.learning.threads import run_each
from serving.store.archiving import ArchiverStore
from serving.store.keys import Entry, Roles, StaleLease, StoreUnavailable

log = logging.getLogger(__name__)

BATCH = 20_000  # entries of each stream that are written at once
IN_FLIGHT_MS = 2_000  # an entry may take so long from the clock's reading into its stream
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Window:
    """How long a policy waits for rewards, and the quality of a decision that got none by then;
    None where it stays missing."""

    ms: int
    missing_quality: float | None = None


Windows = Callable[[], Mapping[str, Window]]  # of each policy, now


def windows_of(policies: Mapping[str, PolicyConfig]) -> dict[str, Window]:
    """As a configuration has them."""
    return {
        name: Window(policy.reward_window_ms, policy.missing_quality)
        for name, policy in policies.items()
    }


def moved(
    at: Position, decisions: Sequence[Entry], outcomes: Sequence[Entry], closed_before_ms: int
) -> Position:
    """The position behind a batch."""
    return Position(
        decisions=decisions[-1][0] if decisions else at.decisions,
        outcomes=outcomes[-1][0] if outcomes else at.outcomes,
        closed_before_ms=max(at.closed_before_ms, closed_before_ms),
        origin=at.origin,
    )


def learned(archived: str, heads: Sequence[bytes | None]) -> str:
    """The last outcome that is archived and that every checkpoint, by its head, has learned; ''
    where a version that learns has none yet."""
    if None in heads:
        return ""
    positions = [read_head(head).header.position for head in heads if head is not None]
    return min((archived, *positions), key=order)


class Archiver:
    """Archives one policy, under a lease: two never both write, or drop anything."""

    def __init__(
        self,
        store: ArchiverStore,
        archive: Archive,
        policy: str,
        window: Callable[[], Window],
        interval_s: float,
    ) -> None:
        self._store = store
        self._archive = archive
        self._policy = policy
        self._window = window
        self._interval_s = interval_s
        self._token = 0
        self._at = Position()

    def burst(self) -> dict[str, int]:
        """Archive all that is in the streams and stop; the entries archived of each.

        Raises
        ------
        StaleLease
            If another archiver holds the lease.
        """
        self._token = self._store.acquire()
        if not self._token:
            raise StaleLease(f"another archiver of policy {self._policy!r} holds the lease")
        try:
            self._resume()
            total = dict.fromkeys(STREAMS, 0)
            while any(new := self._turn()):
                total = {s: total[s] + n for s, n in zip(STREAMS, new, strict=True)}
            return total
        finally:
            self._store.release(self._token)

    def run(self, stop: threading.Event) -> None:
        """Archive until `stop` is set; waits out a store that can't be reached, a path that can't
        be written and a held lease."""
        while not stop.is_set():
            wait_s = RETRY_S
            try:
                self._token = self._store.acquire()
                if self._token:
                    self._lead(stop)
            except (StoreUnavailable, StaleLease) as error:
                log.warning("policy %s: %s; trying again", self._policy, error)
            except OSError as error:
                wait_s = self._interval_s
                log.error(
                    "policy %s: the log can't be written: %s; trying again", self._policy, error
                )
            stop.wait(wait_s)

    def _lead(self, stop: threading.Event) -> None:
        try:
            self._resume()
            while not stop.is_set():
                if max(self._turn()) < BATCH:
                    self._wait(stop)
            self._turn()
        finally:
            self._store.release(self._token)

    def _wait(self, stop: threading.Event) -> None:
        """For the next turn, keeping the lease."""
        waited_s = 0.0
        while waited_s < self._interval_s and not stop.is_set():
            self._store.keep(self._token)
            pause_s = min(1.0, self._interval_s - waited_s)
            stop.wait(pause_s)
            waited_s += pause_s

    def _resume(self) -> None:
        """From where the archive ends, whatever another archiver, or the server, did meanwhile."""
        self._at = self._archive.resume(self._store.trimmed(), self._token, self._store.origin())
        for stream in STREAMS:
            at = getattr(self._at, stream)
            last = self._store.last_entry(stream, at)
            if last is not None and not self._archive.holds(stream, last):
                raise ValueError(
                    f"policy {self._policy!r}: the log belongs to another service, or Redis went "
                    f"back in time: entry {last} of the {stream} should be in it and isn't"
                )
            went_on = self._store.go_on_after(stream, at)
            # The last one that is archived stays in the stream, whatever is trimmed.
            if went_on or at not in (last, START):
                log.warning("policy %s: Redis has lost %s that are archived", self._policy, stream)
        self._store.tell(decisions=self._at.decisions, outcomes=self._at.outcomes)

    def _turn(self) -> tuple[int, int]:
        """Archive the next batch of both streams, and drop what isn't needed any more; how many
        entries there were of each."""
        now_ms = self._store.now_ms()  # before reading: what comes later is not in this batch
        if self._at.closed_before_ms > now_ms:
            log.warning("policy %s: Redis's clock has gone back", self._policy)
            self._at = replace(self._at, closed_before_ms=0)
        window = self._window()
        settled_ms = self._sweep(window, now_ms)
        outcomes = self._store.entries("outcomes", self._at.outcomes, BATCH)
        decisions = self._store.entries("decisions", self._at.decisions, BATCH)
        ended = max(len(decisions), len(outcomes)) < BATCH  # of both streams
        closed_before_ms = settled_ms if ended else 0
        if decisions or outcomes or order(self._at.decisions)[0] >= self._at.closed_before_ms:
            self._write(decisions, outcomes, closed_before_ms)
        self._drop(window)
        return len(decisions), len(outcomes)

    def _sweep(self, window: Window, now_ms: int) -> int:
        """Assume what is missing; no outcome that counts can come any more for decisions made
        before the time that is returned."""
        closed_ms = now_ms - window.ms - IN_FLIGHT_MS
        if window.missing_quality is None:
            self._store.unsweep()
            return closed_ms
        sweep(self._store, self._token, window.missing_quality, now_ms, window.ms, closed_ms)
        return closed_ms - IN_FLIGHT_MS  # by its clock; it was stored, and swept, by the store's

    def _write(
        self, decisions: Sequence[Entry], outcomes: Sequence[Entry], closed_before_ms: int
    ) -> None:
        for revision in self._archive.add(decisions, outcomes):
            try:
                self._archive.put_catalog(revision, self._store.catalog(revision))
            except LookupError as error:
                log.error("policy %s: %s; its rows are archived without", self._policy, error)
        self._store.keep(self._token)  # or another one has taken over: then nothing here counts
        self._at = moved(self._at, decisions, outcomes, closed_before_ms)
        self._archive.commit(self._at)
        self._store.tell(decisions=self._at.decisions, outcomes=self._at.outcomes)
        self._archive.merge()

    def _drop(self, window: Window) -> None:
        decisions = self._at.decisions
        if window.missing_quality is not None:
            swept = self._store.swept()
            decisions = "" if swept is None else min(decisions, swept, key=order)
        roles = self._store.roles()
        outcomes = "" if roles is None else learned(self._at.outcomes, self._heads(roles))
        self._store.keep(self._token, decisions, outcomes, roles)

    def _heads(self, roles: Roles) -> list[bytes | None]:
        """Of the checkpoints of versions that learn: a champion without values has nothing to
        learn for."""
        config, _ = self._store.version(roles.champion)
        learns = read_config(config).model not in models.NO_VALUES
        versions = [roles.champion] if learns else []
        versions += [roles.challenger] if roles.challenger else []
        return [self._store.checkpoint_head(version) for version in versions]


def archive(
    url: str,
    path: str,
    windows: Windows,
    stop: threading.Event,
    interval_s: float,
    wait_replicas: int = 0,
) -> None:
    """Archive each policy that `windows` names, now or later, until `stop`; one that fails
    begins anew where its log ends."""
    last: dict[str, Window] = {}  # of a policy that the file doesn't have any more as well

    def window(policy: str) -> Window:
        last.update(windows())
        return last[policy]

    def work(policy: str) -> None:
        with closing(ArchiverStore(url, policy, wait_replicas)) as store:
            target = Archive(path, policy)
            Archiver(store, target, policy, lambda: window(policy), interval_s).run(stop)

    run_each(windows, work, stop)


def archive_burst(
    url: str, path: str, windows: Mapping[str, Window], wait_replicas: int = 0
) -> dict[str, dict[str, int]]:
    """Archive what is in each policy's streams; how many entries of each."""
    archived = {}
    for policy, window in windows.items():
        with closing(ArchiverStore(url, policy, wait_replicas)) as store:
            archiver = Archiver(store, Archive(path, policy), policy, lambda: window, 0.0)  # noqa: B023
            archived[policy] = archiver.burst()
    return archived
