"""The learner: folds outcome events into value models, publishes snapshots, keeps checkpoints.

Champion and challenger learn from the same stream, each with a fold, checkpoint and snapshot of its
own, so a version that changes its role goes on where it was. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from features.encoder import Encoder
from policy.arms.catalog import Catalog
from policy.config.versions import read_config
from policy.stored import Unreadable
from policy.values.snapshot import State, unpack
from serving.learning.fold import START, Fold
from serving.learning.reading import read_on
from serving.learning.threads import run_each
from serving.store.keys import Roles, StaleLease, StoreUnavailable, order
from serving.store.learning import NOTHING, LearnerStore
from serving.store.states import Change

log = logging.getLogger(__name__)

BLOCK_MS = 200


@dataclass(slots=True)
class _Progress:
    """A fold, what was last written of it, and when more is due."""

    fold: Fold
    saved: State | None
    published: State | None = None
    save_at: float = 0.0
    publish_at: float = 0.0

    def checkpoint(self) -> Change:
        """What is new since the last one, if anything is."""
        return self._since(self.saved, self.fold.checkpoint)

    def snapshot(self) -> Change:
        return self._since(self.published, self.fold.snapshot)

    def _since(self, before: State | None, made: Callable[[], State]) -> Change:
        at = START if before is None else before.header.position
        return NOTHING if self.fold.position == at else Change(made(), before)


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
                    self._store.commit(self._token, "")  # keep the lease
                    stop.wait(0.5)
                    continue
                self._read(block_ms=BLOCK_MS)
                self._commit(save=False, publish=False)
            self._read(block_ms=None)  # serving, which ends first, may have added something
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
        try:
            blob = self._store.checkpoint(version)
            saved = None if blob is None else unpack(blob)
            fold = Fold.resume(
                version, read_config(config), Encoder.from_bytes(encoder), saved, self._catalog
            )
        except ValueError as error:  # to start anew would be to forget, and to say nothing
            raise Unreadable(
                f"policy {self._policy!r}: can't go on with version {version}: {error}"
            ) from error
        if order(fold.position) < order(self._store.trimmed().get("outcomes", START)):
            fold.missed()
        log.info("policy %s: learning version %s from %s", self._policy, version, fold.position)
        return _Progress(fold, saved)

    def _catalog(self, revision: str) -> Catalog:
        if revision not in self._catalogs:
            stored = self._store.catalog(revision)
            try:
                self._catalogs[revision] = Catalog.from_stored(stored)
            except Unreadable as error:
                raise Unreadable(f"catalog {revision}: {error}") from None
        return self._catalogs[revision]

    def _read(self, block_ms: int | None) -> dict[str, int]:
        folds = [progress.fold for progress in self._folds.values()]
        return read_on(folds, self._store, block_ms)

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
        started = time.monotonic()
        checkpoint = progress.checkpoint() if save else NOTHING
        snapshot = progress.snapshot() if publish else NOTHING
        self._store.commit(self._token, progress.fold.version, checkpoint, snapshot)
        now = time.monotonic()
        if checkpoint.state is not None:
            progress.saved, progress.save_at = checkpoint.state, now + self._checkpoint_interval_s
        if snapshot.state is not None:
            # Solving takes at most a fifth of the learner's time, however many arms there are.
            pause = max(self._publish_interval_s, 4 * (now - started))
            progress.published, progress.publish_at = snapshot.state, now + pause


def learn(
    url: str, policies: Callable[[], Sequence[str]], stop: threading.Event, **intervals: float
) -> None:
    """Run a learner for each policy that `policies` names, now or later, until `stop`; one
    that fails begins anew from its checkpoint."""

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
