"""Logs that are a table: a row per choice, its columns named by `columns`.

Most logs that people have are such, and many say neither which other arms there were nor with what
probability one was chosen. Where no column says, every arm of the table counts as eligible, and
propensities stay unknown or are estimated, which each row then says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from features.encoder import Encoder
from offline_eval.importing import columns, context, propensities
from offline_eval.importing.columns import Columns
from offline_eval.importing.rows import (
    AS_THEY_ARE,
    Draw,
    Range,
    Refused,
    Skipped,
    decision,
    number,
    summing_to_1,
)
from policy.records import Context, LoggedDecision, Outcome, Vector

CACHED = 10_000  # contexts: those of a few labels repeat
UNITS = ((1e11, 1e3), (1e14, 1.0), (1e17, 1e-3), (math.inf, 1e-6))  # below which, ms per unit
LATEST = 4e18  # ns of the year 2096
NOTHING = frozenset({"nan", "na", "n/a", "<na>", "null", "none"})  # for a number, in any case
TRUE, FALSE = ("true", "yes"), ("false", "no")

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What one row of a table says: the pmf by arm, or of the chosen arm alone, or nothing."""

    decision_id: str
    made_at_ms: int
    arm: str
    pmf: Mapping[str, float] | float | None
    outcome: Outcome
    x: Context


@dataclass(frozen=True)
class Reader:
    """How a table is to be understood: which column says what (`columns.chosen`), and the range of
    its rewards. `estimate` says to estimate propensities where no column holds them."""

    policy: str = "imported"
    given: Mapping[str, Any] | None = None
    rewards: Range = AS_THEY_ARE
    estimate: bool = False

    def read(
        self, records: Iterator[Record | str], source: str, seen: set[str]
    ) -> Iterator[Given | Skipped]:
        """What each record says, or why it says nothing; the lines are records, counted from 1.

        A row without a time gets its number as one, which keeps the order; one without an id gets
        `source` and its number. Ids in `seen`, which grows, are skipped.
        """
        encode = _encoder()
        named: Columns | None = None
        of_arms: Mapping[str, str] = {}
        for line, record in enumerate(records, start=1):
            try:
                if isinstance(record, str):
                    raise Refused(record)
                if named is None:
                    named = columns.chosen(self.given or {}, list(record))
                    of_arms = named.of_arms(list(record))
                row = _Row(record, named, line)
                one = Given(
                    decision_id=row.text(named.decision_id) or f"{source}-{line}",
                    made_at_ms=row.made_at_ms(),
                    arm=row.arm(),
                    pmf=row.pmf(of_arms),
                    outcome=row.outcome(self.rewards),
                    x=row.context(encode),
                )
                if one.decision_id in seen:
                    raise Refused(f"decision {one.decision_id!r} has been there before")
                seen.add(one.decision_id)
                yield one
            except Refused as reason:
                yield Skipped(line, str(reason))

    def rows(self, given: Sequence[Given]) -> Iterator[LoggedDecision]:
        """The log's rows, when all are known: what no column says of the other arms is made of how
        often each was chosen."""
        arms = tuple(sorted({one.arm for one in given}))
        share = Counter(one.arm for one in given)
        unknown = bool(given) and all(one.pmf is None for one in given)
        guessed = self._estimated(given, arms) if unknown and self.estimate else None
        fingerprint = Encoder.default().fingerprint
        for i, one in enumerate(given):
            pmf = guessed[i] if guessed is not None else _shared_out(one, arms, share)
            draw = Draw(arms, pmf, one.arm)
            if isinstance(one.pmf, Mapping):
                draw = Draw(tuple(one.pmf), np.array(list(one.pmf.values())), one.arm)
            made = decision(
                one.decision_id, self.policy, "", one.made_at_ms, draw, fingerprint, one.x
            )
            yield LoggedDecision(made, one.outcome, propensity_estimated=guessed is not None)

    def _estimated(self, given: Sequence[Given], arms: Sequence[str]) -> Vector:
        at = {arm: i for i, arm in enumerate(arms)}
        chosen = np.array([at[one.arm] for one in given])
        return propensities.estimated(np.stack([one.x for one in given]), chosen, len(arms))


def _shared_out(one: Given, arms: Sequence[str], share: Mapping[str, int]) -> Vector:
    """(k,) with what the chosen arm's propensity leaves to the others shared out by how often they
    were chosen: importance weights use none of that guess. NaN where nothing is known."""
    propensity = one.pmf
    if not isinstance(propensity, float):
        return np.full(len(arms), np.nan)
    if len(arms) == 1 and propensity < 1.0:
        raise ValueError(
            f"every row chose {one.arm!r}, with a propensity of {propensity:g}: the other arms are"
            " in no row"
        )
    pmf = np.array([0.0 if arm == one.arm else float(share[arm]) for arm in arms])
    pmf *= (1.0 - propensity) / max(pmf.sum(), 1.0)
    pmf[arms.index(one.arm)] = propensity
    return pmf


Encode = Callable[[str | None, str | None, tuple[tuple[str, str], ...]], Context]


def _encoder() -> Encode:
    encoder = Encoder.default()

    @lru_cache(CACHED)
    def encode(
        text: str | None, task_type: str | None, labels: tuple[tuple[str, str], ...]
    ) -> Context:
        return context.encode(encoder, text, dict(labels), task_type)

    return encode


@dataclass(frozen=True, slots=True)
class _Row:
    """A record, read by what its columns mean."""

    record: Record
    columns: Columns
    line: int

    def text(self, column: str | None) -> str | None:
        """A cell as text; None for none, or no column."""
        value = None if column is None else self.record.get(column)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        return context.plain(value)

    def arm(self) -> str:
        arm = self.text(self.columns.arm)
        if arm is None:
            raise Refused(f"{self.columns.arm} is missing: no arm")
        return arm

    def number(self, column: str | None, least: float = 0.0, most: float = math.inf) -> float:
        """NaN where there is none."""
        text = self.text(column)
        if text is None or text.strip().lower() in NOTHING:
            return math.nan
        value = self.record[column or ""]
        if isinstance(value, str):
            value = _number(value)
        return number(_float(value), str(column), least, most)

    def made_at_ms(self) -> int:
        name = self.columns.time
        text = self.text(name)
        if name is None:
            return self.line
        if text is None:
            raise Refused(f"{name} is missing: no time")
        value = self.record[name]
        at = value if isinstance(value, datetime) else None
        plain = _number(text) if at is None else None
        if isinstance(plain, float):
            seconds = number(plain, name, 0.0, LATEST)
            return round(seconds * next(ms for most, ms in UNITS if seconds < most))
        try:
            at = at or datetime.fromisoformat(text)
        except ValueError:
            raise Refused(
                f"{name} must be ISO 8601 or a number of seconds since 1970, got {text!r}"
            ) from None
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)

    def pmf(self, of_arms: Mapping[str, str]) -> Mapping[str, float] | float | None:
        if of_arms:
            return self._of_arms(of_arms)
        name = self.columns.propensity
        if name is None:
            return None
        propensity = self.number(str(name), 0.0, 1.0)
        if not propensity > 0.0:
            raise Refused(f"{name} must be in (0, 1], got {self.record.get(str(name))!r}")
        return propensity

    def _of_arms(self, of_arms: Mapping[str, str]) -> Mapping[str, float]:
        """Of the arms that have one: an empty cell is no probability, the arm wasn't eligible."""
        found = {arm: self.number(column, 0.0, 1.0) for arm, column in of_arms.items()}
        found = {arm: p for arm, p in found.items() if not math.isnan(p)}
        arm = self.arm()
        if not found.get(arm, 0.0) > 0.0:
            raise Refused(f"{arm!r} was chosen, and has no probability > 0")
        p = summing_to_1(np.array(list(found.values())), "the arms' probabilities")
        return dict(zip(found, p.tolist(), strict=True))

    def outcome(self, rewards: Range) -> Outcome:
        columns = self.columns
        reward = self.number(columns.reward or columns.quality, -math.inf)
        latency_ms, cost_usd = self.number(columns.latency_ms), self.number(columns.cost_usd)
        return Outcome(
            quality=None if math.isnan(reward) else rewards.quality(reward),
            latency_ms=None if math.isnan(latency_ms) else latency_ms,
            cost_usd=None if math.isnan(cost_usd) else cost_usd,
            error=self.text(columns.error),
            closed=True,
        )

    def context(self, encode: Encode) -> Context:
        columns = self.columns
        features = {name: self.record.get(name) for name in columns.labels}
        labels = context.labels({k: v for k, v in features.items() if v not in (None, "")})
        task_type = self.text(columns.task_type)
        return encode(self.text(columns.text), task_type, tuple(labels.items()))


def _number(text: str) -> Any:
    """A cell of text as a number or truth value, if it is one."""
    plain = text.strip().lower()
    if plain in TRUE or plain in FALSE:
        return plain in TRUE
    try:
        return float(plain)
    except ValueError:
        return text


def _float(value: Any) -> Any:
    """Truths are 0 and 1, and Parquet has decimals, too; what is none stays as it is."""
    try:
        return value if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return value if isinstance(value, list | dict) else str(value)
