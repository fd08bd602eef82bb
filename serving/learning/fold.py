"""One version's fold of outcome events: state = fold(events), a pure function of their order.

The checkpoint carries its position in the stream, and is written with it, so a crash repeats events
but never counts one twice. Knows no store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import groupby

import orjson

from features.encoder import Encoder
from policy.arms.catalog import Catalog
from policy.choosing.incumbent import Ledger
from policy.comparing import Scoreboard
from policy.config.schema import PolicyConfig
from policy.plans.learned import PlanLearning
from policy.values import models
from policy.values.protocol import ValueModel
from policy.values.snapshot import Header, State
from serving.learning.events import (
    Event,
    as_seen,
    batch_of,
    corrections_of,
    is_correction,
    overruled,
    shadow_batch_of,
    spared,
)
from serving.learning.plans import has_calls, is_plan, latencies, taught
from serving.store.keys import Entry

log = logging.getLogger(__name__)

START = "0-0"


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
        self.ledger = Ledger.of(config, encoder.d)
        self.plans: PlanLearning | None = None  # from the first plan's outcome on
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
        checkpoint: State | None,
        catalog: Callable[[str], Catalog],
    ) -> Fold:
        """From a checkpoint, or from nothing.

        `catalog` gives the catalog of a revision that events name.
        """
        fold = cls(version, config, encoder, models.new_model(config, encoder), catalog)
        if checkpoint is not None:
            header = checkpoint.header
            if (header.version, header.encoder) != (version, encoder.fingerprint):
                raise ValueError(f"the checkpoint of version {version} belongs to another one")
            if fold.model is not None:
                fold.model = models.read_model(header.kind, checkpoint.parts)
            if fold.ledger is not None and header.ledger is not None:
                fold.ledger.restore(header.ledger)
            if header.plans is not None:
                fold.plans = PlanLearning.of(header.plans)
            fold.scores = Scoreboard.from_record(header.scores)
            fold.position = header.position
        return fold

    def fold(self, entries: Sequence[Entry]) -> None:
        """Learn from events, in stream order, and move the position behind them."""
        if not entries:
            return
        executed = [fields for _, fields in entries if fields[b"executed"] == b"1"]
        for corrected, run in groupby(executed, is_correction):
            events = list(run)
            if self.model is not None:
                self._learn(self.model, events, corrected)
            self._score([event for event in events if b"shadow" in event], corrected)
        self.position = entries[-1][0]

    def _learn(self, model: ValueModel, events: Sequence[Event], corrected: bool) -> None:
        encoder = self._encoder.fingerprint
        seen = [own for event in events if (own := as_seen(event, encoder)) is not None]
        if corrected:  # what several calls have taught stays
            self._correct(model, [event for event in seen if not has_calls(event)])
            return
        at = 0
        if self.plans is None:
            at = next((i for i, event in enumerate(seen) if is_plan(event)), len(seen))
            self._add(model, seen[:at])
        if at < len(seen):
            self.plans = self.plans or PlanLearning()
            self._add(model, seen[at:])

    def _add(self, model: ValueModel, seen: Sequence[Event]) -> None:
        plans = self.plans or PlanLearning()
        told = list(taught(seen, plans, self._config.scales))
        if not told:
            return
        batch = batch_of(told, self._encoder.d, self._catalog)
        plans.add_latencies(batch.arms, latencies(batch))
        # A failure is a decision that earned nothing, and no lesson on what its arm is worth.
        model.learn(replace(batch, settled=batch.settled | spared(told)[:, None]))
        if self.ledger is not None:
            self.ledger.add(batch)

    def _correct(self, model: ValueModel, seen: Sequence[Event]) -> None:
        if not seen:
            return
        corrections = corrections_of(
            seen, self._encoder.fingerprint, self._encoder.d, self._catalog
        )
        model.correct(corrections)
        if self.ledger is not None:
            self.ledger.correct(corrections)

    def _score(self, events: Sequence[Event], corrected: bool) -> None:
        read = [(event, orjson.loads(event[b"shadow"])) for event in events]
        own = [(event, shadow) for event, shadow in read if shadow["version"] == self.version]
        if not own:
            return
        new = shadow_batch_of(own, self._config.scales)
        if corrected:
            old = [(overruled(event), shadow) for event, shadow in own]
            self.scores.correct(shadow_batch_of(old, self._config.scales), new)
        else:
            self.scores.add(new)

    def missed(self) -> None:
        """Events between its position and the next one are gone, so that nobody can tell any more
        which of those before it a correction is of: they are not taken back."""
        log.warning("version %s has missed outcomes that Redis has no more", self.version)
        if self.model is not None:
            self.model.start_events = self.model.events
        if self.ledger is not None:
            self.ledger.start_events = self.ledger.events

    def checkpoint(self) -> State:
        header = self._header()
        if self.ledger is not None:
            header = replace(header, ledger=self.ledger.to_record())
        return State(header, {} if self.model is None else self.model.to_parts())

    def snapshot(self) -> State:
        header = self._header()
        if self.ledger is not None:
            header = replace(header, standing=asdict(self.ledger.standing()))
        return State(header, {} if self.model is None else self.model.view().to_parts())

    def _header(self) -> Header:
        return Header(
            kind=self._config.model,
            version=self.version,
            encoder=self._encoder.fingerprint,
            position=self.position,
            events=self.events,
            scores=self.scores.to_record(),
            plans=None if self.plans is None else self.plans.to_record(),
        )
