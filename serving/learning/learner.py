"""The learner: folds outcome events into value models, publishes snapshots, keeps checkpoints.

state = fold(events), a pure function of their order. The checkpoint carries its position in the
stream inside the same blob, so a crash repeats events but never counts one twice. Champion and
challenger learn from the same stream, each with a fold, checkpoint and snapshot of its own, so a
version that changes its role goes on where it was. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from features.encoder import Encoder
from policy.arms.catalog import Catalog
from policy.comparing import Scoreboard, ShadowBatch, values_of
from policy.config.schema import PolicyConfig
from policy.objective import Scales
from policy.records import CorrectionBatch, OutcomeBatch, Vector
from policy.values import models
from policy.values.protocol import ValueModel
from policy.values.snapshot import Header, pack, unpack
from serving.learning.threads import run_each
from serving.store.keys import Entry, Roles, StaleLease, StoreUnavailable, order
from serving.store.learning import LearnerStore

log = logging.getLogger(__name__)

BATCH = 2048  # events read at once
BLOCK_MS = 200
START = "0-0"
COMPONENTS = (b"quality", b"latency_ms", b"cost_usd")

Event = dict[bytes, bytes]


class Fold:
    """A version's model, what it has shown as a challenger, and the position in the stream that
    both have reached. `model` is None where the policy learns nothing."""

    def __init__(
        self,
        version: str,
        config: PolicyConfig,
        encoder: Encoder,
        model: ValueModel | None,
        catalog: Callable[[str], Catalog],
    ) -> None:
        self.version = version
        self.position = START
        self.model = model
        self.scores = Scoreboard()
        self._config = config
        self._encoder = encoder
        self._catalog = catalog

    @property
    def events(self) -> int:
        """Outcomes that the model has learned from."""
        return 0 if self.model is None else self.model.events

    @classmethod
    def resume(
        cls,
        version: str,
        config: PolicyConfig,
        encoder: Encoder,
        checkpoint: bytes | None,
        catalog: Callable[[str], Catalog],
    ) -> Fold:
        """From a checkpoint, or from nothing.

        `catalog` gives the catalog of a revision that events name.
        """
        fold = cls(version, config, encoder, models.new_model(config, encoder), catalog)
        if checkpoint is not None:
            header, body = unpack(checkpoint)
            if (header.version, header.encoder) != (version, encoder.fingerprint):
                raise ValueError(f"the checkpoint of version {version} belongs to another one")
            if fold.model is not None:
                fold.model = models.read_model(header.kind, body)
            fold.scores = Scoreboard.from_record(header.scores)
            fold.position = header.position
        return fold

    def fold(self, entries: Sequence[Entry]) -> None:
        """Learn from events, in stream order, and move the position behind them."""
        if not entries:
            return
        executed = [fields for _, fields in entries if fields[b"executed"] == b"1"]
        for corrected, run in groupby(executed, _is_correction):
            events = list(run)
            if self.model is not None:
                self._learn(self.model, events, corrected)
            self._score([event for event in events if b"shadow" in event], corrected)
        self.position = entries[-1][0]

    def _learn(self, model: ValueModel, events: Sequence[Event], corrected: bool) -> None:
        encoder, d = self._encoder.fingerprint, self._encoder.d
        seen = [own for event in events if (own := as_seen(event, encoder)) is not None]
        if not seen:
            return
        if corrected:
            model.correct(corrections_of(seen, encoder, d, self._catalog))
        else:
            model.learn(batch_of(seen, d, self._catalog))

    def _score(self, events: Sequence[Event], corrected: bool) -> None:
        read = [(event, orjson.loads(event[b"shadow"])) for event in events]
        own = [(event, shadow) for event, shadow in read if shadow["version"] == self.version]
        if not own:
            return
        new = shadow_batch_of(own, self._config.scales)
        if corrected:
            old = [(_overruled(event), shadow) for event, shadow in own]
            self.scores.correct(shadow_batch_of(old, self._config.scales), new)
        else:
            self.scores.add(new)

    def missed(self) -> None:
        """Events between its position and the next one are gone, so that nobody can tell any more
        which of those before it a correction is of: they are not taken back."""
        log.warning("version %s has missed outcomes that Redis has no more", self.version)
        if self.model is not None:
            self.model.start_events = self.model.events

    def checkpoint(self) -> bytes:
        return pack(self._header(), b"" if self.model is None else self.model.to_bytes())

    def snapshot(self) -> bytes:
        return pack(self._header(), b"" if self.model is None else self.model.view().to_bytes())

    def _header(self) -> Header:
        return Header(
            kind=self._config.model,
            version=self.version,
            encoder=self._encoder.fingerprint,
            position=self.position,
            events=self.events,
            scores=self.scores.to_record(),
        )


def _is_correction(event: Event) -> bool:
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


def _settled(events: Sequence[Event]) -> NDArray[np.bool_]:
    """(n, 3): which components an earlier event of the same decision has taught; of a correction,
    which ones no event taught that could be taken back: an error had settled them before."""
    settled = np.zeros((len(events), len(COMPONENTS)), dtype=bool)
    for row, event in enumerate(events):
        if _is_correction(event):
            settled[row] = [name not in event[b"taught"] for name in COMPONENTS]
        elif earlier := event[b"earlier"]:
            settled[row] = [name in earlier or b"error" in earlier for name in COMPONENTS]
    return settled


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
    )


def corrections_of(
    events: Sequence[Event], encoder: str, d: int, catalog: Callable[[str], Catalog]
) -> CorrectionBatch:
    """Stream entries that are corrections, as a model with this encoder takes them."""
    new = batch_of(events, d, catalog)
    quality, latency_ms, cost_usd = _components([_overruled(event) for event in events])
    old = replace(new, quality=quality, latency_ms=latency_ms, cost_usd=cost_usd)
    since = [orjson.loads(event[b"taught"])[encoder] for event in events]
    names = [name.decode() for name in COMPONENTS]
    counts = [[counted.get(name, 0) for name in names] for counted in since]
    return CorrectionBatch(old, new, np.array(counts, dtype=np.intp))


def _overruled(event: Event) -> Event:
    """A correction with the values that it replaced in the place of the new ones."""
    return event | {name: event[b"old_" + name] for name in COMPONENTS if name in event}


def _propensity(event: Event) -> float:
    drawn = event[b"arm"] == event[b"decided_arm"]
    return float(event[b"propensity"]) if drawn else float("nan")


@dataclass(slots=True)
class _Progress:
    """A fold, and which of its positions were written when."""

    fold: Fold
    saved: str
    published: str = START
    save_at: float = 0.0
    publish_at: float = 0.0


class Learner:
    """Runs the folds of one policy, its champion's and its challenger's, under one lease."""

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
        self._roles: Roles | None = None
        self._folds: dict[str, _Progress] = {}
        self._catalogs: dict[str, Catalog] = {}

    def burst(self) -> int:
        """Fold all that is in the stream, save and publish it, and stop; the events folded, by
        the fold that had most before it.

        Raises
        ------
        StaleLease
            If another learner holds the lease.
        """
        self._token = self._store.acquire()
        if not self._token:
            raise StaleLease(f"another learner of policy {self._policy!r} holds the lease")
        try:
            self._follow_roles()
            folded = dict.fromkeys(self._folds, 0)
            while new := self._read(block_ms=None):
                for version, events in new.items():
                    folded[version] += events
            self._commit(save=True, publish=True)
            return max(folded.values(), default=0)
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
        self._roles, self._folds = None, {}  # what another learner wrote meanwhile is the truth
        try:
            while not stop.is_set():
                self._follow_roles()
                if not self._folds:
                    self._store.commit(self._token, "", b"", b"")  # keep the lease
                    stop.wait(0.5)
                    continue
                self._read(block_ms=BLOCK_MS)
                self._commit(save=False, publish=False)
            self._commit(save=True, publish=True)
        finally:
            self._store.release(self._token)

    def _follow_roles(self) -> None:
        """Keep the folds of versions that still have a role, whichever; take up the others'."""
        roles = self._store.roles()
        if roles is None or roles == self._roles:
            return
        if self._folds:
            self._commit(save=True, publish=False)
        before, self._folds = self._folds, {}
        for version in filter(None, (roles.champion, roles.challenger)):
            try:
                progress = before.get(version) or self._resume(version)
            except (ValueError, LookupError) as error:
                if version == roles.champion:
                    raise
                log.error("policy %s: challenger %s can't learn: %s", self._policy, version, error)
                continue
            # A champion that learns nothing has nothing to show either; a challenger has.
            if progress.fold.model is not None or version == roles.challenger:
                self._folds[version] = progress
        self._roles = roles

    def _resume(self, version: str) -> _Progress:
        config, encoder = self._store.version(version)
        fold = Fold.resume(
            version,
            PolicyConfig.model_validate_json(config),
            Encoder.from_bytes(encoder),
            self._store.checkpoint(version),
            self._catalog,
        )
        if order(fold.position) < order(self._store.trimmed().get("outcomes", START)):
            fold.missed()
        log.info("policy %s: learning version %s from %s", self._policy, version, fold.position)
        return _Progress(fold, saved=fold.position)

    def _catalog(self, revision: str) -> Catalog:
        if revision not in self._catalogs:
            self._catalogs[revision] = Catalog.from_json(self._store.catalog(revision))
        return self._catalogs[revision]

    def _read(self, block_ms: int | None) -> dict[str, int]:
        """Fold the next events; how many, by version, and nothing where there were none.

        Folds at one position share a read. One that is behind, for it came later, gets a batch in
        each turn after those ahead of it have read, and never overtakes them: where it catches up
        it joins them.
        """
        positions = sorted({p.fold.position for p in self._folds.values()}, key=order)
        if len(positions) > 1:
            block_ms = None
        folded: dict[str, int] = {}
        for position in reversed(positions):
            level = [p.fold for p in self._folds.values() if p.fold.position == position]
            entries = self._store.outcomes(position, BATCH, block_ms)
            ahead = [p.fold.position for p in self._folds.values() if p.fold not in level]
            nearest = min(
                (other for other in ahead if order(other) > order(position)),
                key=order,
                default=None,
            )
            if nearest is not None:
                limit = order(nearest)
                entries = [entry for entry in entries if order(entry[0]) <= limit]
            for fold in level:
                fold.fold(entries)
                if entries:
                    folded[fold.version] = len(entries)
                elif nearest is not None:
                    fold.position = nearest  # what lay between is no longer in the stream
        return folded

    def _commit(self, *, save: bool, publish: bool) -> None:
        """Write the checkpoints and snapshots that are due, or `save` and `publish` in any case,
        and renew the lease all the same."""
        for progress in self._folds.values():
            now = time.monotonic()
            self._write(
                progress,
                save=save or now >= progress.save_at,
                publish=publish or now >= progress.publish_at,
            )

    def _write(self, progress: _Progress, *, save: bool, publish: bool) -> None:
        fold = progress.fold
        started = time.monotonic()
        checkpoint = fold.checkpoint() if save and fold.position != progress.saved else b""
        snapshot = fold.snapshot() if publish and fold.position != progress.published else b""
        self._store.commit(self._token, fold.version, checkpoint, snapshot)
        now = time.monotonic()
        if checkpoint:
            progress.saved, progress.save_at = fold.position, now + self._checkpoint_interval_s
        if snapshot:
            # Solving takes at most a fifth of the learner's time, however many arms there are.
            pause = max(self._publish_interval_s, 4 * (now - started))
            progress.published, progress.publish_at = fold.position, now + pause


def learn(
    url: str, policies: Callable[[], Sequence[str]], stop: threading.Event, **intervals: float
) -> None:
    """Run a learner for each policy that `policies` names, now or later, until `stop`; the first
    failure stops all of them and is raised."""

    def work(policy: str) -> None:
        with closing(LearnerStore(url, policy)) as store:
            Learner(store, policy, **intervals).run(stop)

    run_each(policies, work, stop)


def learn_burst(url: str, policies: Sequence[str], **intervals: Any) -> dict[str, int]:
    """Drain each policy's stream once; the events folded per policy."""
    folded = {}
    for policy in policies:
        with closing(LearnerStore(url, policy)) as store:
            folded[policy] = Learner(store, policy, **intervals).burst()
    return folded
