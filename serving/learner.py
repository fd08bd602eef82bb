"""The learner: folds outcome events into a value model, publishes snapshots, keeps a checkpoint.

state = fold(events), a pure function of their order. The checkpoint carries its position in the
stream inside the same blob, so a crash repeats events but never counts one twice. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from features.encoder import Encoder
from policy import models
from policy.catalog import Catalog
from policy.config import PolicyConfig
from policy.records import OutcomeBatch
from policy.snapshot import Header, pack, unpack
from policy.values import ValueModel
from serving.store import Entry, LearnerStore, StaleLease, StoreUnavailable

log = logging.getLogger(__name__)

BATCH = 2048  # events read at once
BLOCK_MS = 200
START = "0-0"
COMPONENTS = (b"quality", b"latency_ms", b"cost_usd")


class Fold:
    """A version's model and the position in the stream that it has reached."""

    def __init__(
        self,
        version: str,
        kind: str,
        encoder: Encoder,
        model: ValueModel,
        catalog: Callable[[str], Catalog],
    ) -> None:
        self.version = version
        self.position = START
        self.model = model
        self._kind = kind
        self._encoder = encoder
        self._catalog = catalog

    @classmethod
    def resume(
        cls,
        version: str,
        config: PolicyConfig,
        encoder: Encoder,
        checkpoint: bytes | None,
        catalog: Callable[[str], Catalog],
    ) -> Fold | None:
        """From a checkpoint, or from nothing; None where the policy learns nothing.

        `catalog` gives the catalog of a revision that events name.
        """
        model = models.new_model(config, encoder)
        if model is None:
            return None
        fold = cls(version, config.model, encoder, model, catalog)
        if checkpoint is not None:
            header, body = unpack(checkpoint)
            if (header.version, header.encoder) != (version, encoder.fingerprint):
                raise ValueError(f"the checkpoint of version {version} belongs to another one")
            fold.model = models.read_model(header.kind, body)
            fold.position = header.position
        return fold

    def fold(self, entries: Sequence[Entry]) -> None:
        """Learn from events, in stream order, and move the position behind them."""
        if not entries:
            return
        usable = [fields for _, fields in entries if self._teaches(fields)]
        if usable:
            self.model.learn(batch_of(usable, self._encoder.d, self._catalog))
        self.position = entries[-1][0]

    def _teaches(self, fields: dict[bytes, bytes]) -> bool:
        return (
            fields[b"executed"] == b"1" and fields[b"encoder"].decode() == self._encoder.fingerprint
        )

    def checkpoint(self) -> bytes:
        return pack(self._header(), self.model.to_bytes())

    def snapshot(self) -> bytes:
        return pack(self._header(), self.model.view().to_bytes())

    def _header(self) -> Header:
        return Header(
            kind=self._kind,
            version=self.version,
            encoder=self._encoder.fingerprint,
            position=self.position,
            events=self.model.events,
        )


def batch_of(
    events: Sequence[dict[bytes, bytes]], d: int, catalog: Callable[[str], Catalog]
) -> OutcomeBatch:
    """Stream entries as columns; x is raw float32 of d numbers, `catalog` reads a revision."""
    quality, latency_ms, cost_usd = (
        np.array([float(event.get(name, b"nan")) for event in events]) for name in COMPONENTS
    )
    settled = np.zeros((len(events), len(COMPONENTS)), dtype=bool)
    for row, event in enumerate(events):
        if earlier := event[b"earlier"]:
            settled[row] = [name in earlier or b"error" in earlier for name in COMPONENTS]
    return OutcomeBatch(
        arms=[event[b"arm"].decode() for event in events],
        x=np.frombuffer(b"".join([event[b"x"] for event in events]), np.float32).reshape(-1, d),
        quality=quality,
        latency_ms=latency_ms,
        cost_usd=cost_usd,
        error=np.array([b"error" in event for event in events], dtype=bool),
        settled=settled,
        list_cost_usd=np.array([float(event[b"list_cost_usd"]) for event in events]),
        propensity=np.array([_propensity(event) for event in events]),
        catalogs=[catalog(event[b"catalog"].decode()) for event in events],
        eligible=[event[b"eligible"] for event in events],
    )


def _propensity(event: dict[bytes, bytes]) -> float:
    drawn = event[b"arm"] == event[b"decided_arm"]
    return float(event[b"propensity"]) if drawn else float("nan")


class Learner:
    """Runs one policy's fold against the store, under a lease."""

    def __init__(
        self,
        store: LearnerStore,
        policy: str,
        *,
        publish_interval_s: float,
        checkpoint_interval_s: float,
    ) -> None:
        self._store = store
        self._policy = policy
        self._publish_interval_s = publish_interval_s
        self._checkpoint_interval_s = checkpoint_interval_s
        self._token = 0
        self._fold: Fold | None = None
        self._version: str | None = None
        self._published = self._saved = START
        self._publish_at = self._save_at = 0.0
        self._catalogs: dict[str, Catalog] = {}

    def burst(self) -> int:
        """Fold all that is in the stream, save and publish it, and stop; the events folded.

        Raises
        ------
        StaleLease
            If another learner holds the lease.
        """
        self._token = self._store.acquire()
        if not self._token:
            raise StaleLease(f"another learner of policy {self._policy!r} holds the lease")
        try:
            self._follow_champion()
            folded = 0
            while new := self._read(block_ms=None):
                folded += new
            self._commit(save=True, publish=True)
            return folded
        finally:
            self._store.release(self._token)

    def run(self, stop: threading.Event) -> None:
        """Learn until `stop` is set; waits out a store that can't be reached and a held lease."""
        while not stop.is_set():
            try:
                self._token = self._store.acquire()
                if self._token:
                    self._lead(stop)
                else:
                    stop.wait(0.5)
            except StoreUnavailable as error:
                log.warning("policy %s: %s; trying again", self._policy, error)
                stop.wait(0.5)
            except StaleLease as error:
                log.warning("policy %s: %s; starting over from the checkpoint", self._policy, error)
                stop.wait(0.5)

    def _lead(self, stop: threading.Event) -> None:
        self._version = None  # what another learner wrote meanwhile is the truth
        try:
            while not stop.is_set():
                self._follow_champion()
                if self._fold is None:
                    self._store.commit(self._token, "", b"", b"")  # keep the lease
                    stop.wait(0.5)
                    continue
                self._read(block_ms=BLOCK_MS)
                now = time.monotonic()
                publish = self._fold.position != self._published and now >= self._publish_at
                self._commit(save=now >= self._save_at, publish=publish)
            self._commit(save=True, publish=True)
        finally:
            self._store.release(self._token)

    def _follow_champion(self) -> None:
        champion = self._store.champion()
        if champion is None or champion == self._version:
            return
        self._commit(save=True, publish=False)
        config, encoder = self._store.version(champion)
        self._fold = Fold.resume(
            champion,
            PolicyConfig.model_validate_json(config),
            Encoder.from_bytes(encoder),
            self._store.checkpoint(champion),
            self._catalog,
        )
        self._version = champion
        self._saved = self._fold.position if self._fold else START
        self._published = START
        log.info("policy %s: learning version %s from %s", self._policy, champion, self._saved)

    def _catalog(self, revision: str) -> Catalog:
        if revision not in self._catalogs:
            self._catalogs[revision] = Catalog.from_json(self._store.catalog(revision))
        return self._catalogs[revision]

    def _read(self, block_ms: int | None) -> int:
        if self._fold is None:
            return 0
        entries = self._store.outcomes(self._fold.position, BATCH, block_ms)
        self._fold.fold(entries)
        return len(entries)

    def _commit(self, *, save: bool, publish: bool) -> None:
        """Write checkpoint and snapshot where they are due, and renew the lease all the same."""
        fold = self._fold
        if fold is None or self._version is None:
            return
        started = time.monotonic()
        checkpoint = fold.checkpoint() if save and fold.position != self._saved else b""
        snapshot = fold.snapshot() if publish and fold.position != self._published else b""
        self._store.commit(self._token, fold.version, checkpoint, snapshot)
        now = time.monotonic()
        if checkpoint:
            self._saved, self._save_at = fold.position, now + self._checkpoint_interval_s
        if snapshot:
            # Solving takes at most a fifth of the learner's time, however many arms there are.
            pause = max(self._publish_interval_s, 4 * (now - started))
            self._published, self._publish_at = fold.position, now + pause


def learn(
    url: str, policies: Callable[[], Sequence[str]], stop: threading.Event, **intervals: float
) -> None:
    """Run a learner for each policy that `policies` names, now or later, until `stop`.

    The first failure stops all of them and is raised: learning never goes on in silence.
    """
    failures: list[BaseException] = []
    threads: dict[str, threading.Thread] = {}

    def work(policy: str) -> None:
        store = LearnerStore(url, policy)
        try:
            Learner(store, policy, **intervals).run(stop)
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            store.close()

    while not stop.is_set():
        for name in policies():
            if name not in threads:
                threads[name] = threading.Thread(target=work, args=(name,), name=name)
                threads[name].start()
        stop.wait(1.0)
    for thread in threads.values():
        thread.join()
    if failures:
        raise failures[0]


def learn_burst(url: str, policies: Sequence[str], **intervals: Any) -> dict[str, int]:
    """Drain each policy's stream once; the events folded per policy."""
    folded = {}
    for policy in policies:
        store = LearnerStore(url, policy)
        try:
            folded[policy] = Learner(store, policy, **intervals).burst()
        finally:
            store.close()
    return folded
