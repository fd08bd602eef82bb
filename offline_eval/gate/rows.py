"""The rows that a version may be judged on.

First those since arms or prices last changed, while the present champion acted: a `Window`, as a
table. Then of these the `Rounds` in which both versions were at work, as arrays. Knows no margin
and no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from offline_eval.estimating import target
from offline_eval.gate.terms import Pair
from offline_eval.log.checking import TOLERANCE
from offline_eval.log.data import Index, LoggedData, Mask, Vector
from offline_eval.log.reading import read_table
from offline_eval.log.schema import SCHEMA
from policy import objective
from policy.objective import Scales, Weights

UNREAD = ("query", "challenger_x")  # neither is asked for, and both are large
UNKNOWN = 0.5  # stands for a prediction that was not made; any constant is as valid


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The rows since the last change of arms or prices, whoever decided them."""

    path: str
    policy: str
    catalog: str  # revision of the arms and prices that held
    from_ms: int  # when its first row was decided
    table: pa.Table

    @classmethod
    def last(cls, path: str, policy: str, since_ms: int | None = None) -> Window:
        """The newest of the log, or of what was decided from `since_ms` on.

        Raises
        ------
        ValueError
            If there is no log at `path`, or it has no row of this policy.
        """
        columns = read_table(path, policy, since_ms, columns=["catalog", "made_at_ms"])
        if not len(columns):
            raise ValueError(f"the log at {path} has no row of policy {policy!r}")
        catalogs = columns["catalog"].combine_chunks().dictionary_encode()
        changes = np.flatnonzero(np.diff(catalogs.indices.to_numpy()))
        first = int(changes[-1]) + 1 if len(changes) else 0
        revision = catalogs[first].as_py()
        from_ms = columns["made_at_ms"][first].as_py()
        names = [name for name in (*SCHEMA.names, "policy") if name not in UNREAD]
        table = read_table(path, policy, from_ms, columns=names)
        # What came by a token is there only because somebody reported it.
        wanted = (pc.field("catalog") == revision) & pc.field("logged_by").is_null()
        return cls(path, policy, revision, from_ms, table.filter(wanted))

    def __len__(self) -> int:
        return len(self.table)

    def of(self, champion: str, after_ms: int = -1) -> Window:
        """What `champion` decided, later than `after_ms`.

        Raises
        ------
        ValueError
            If that is nothing.
        """
        acted = self.table.filter(pc.field("version") == champion)
        found = acted.filter(pc.field("made_at_ms") > after_ms)
        if len(found):
            return Window(self.path, self.policy, self.catalog, self.from_ms, found)
        if len(acted):
            since = datetime.fromtimestamp(after_ms / 1_000, UTC)
            raise ValueError(
                f"none of version {champion}'s {len(acted):,} rows since arms or prices last"
                f" changed, in the log at {self.path}, was decided after"
                f" {since:%Y-%m-%d %H:%M:%S} UTC, when the version to be judged had last learned"
                " or was rolled back"
            )
        others = ", ".join(sorted(set(self.table["version"].to_pylist())))
        raise ValueError(
            f"version {champion} is champion, but the {len(self):,} rows since arms or prices last"
            f" changed, in the log at {self.path}, were decided by version {others}"
        )

    def beside(self, challenger: str) -> Window | None:
        """The rows in which `challenger` ran in shadow; None where it never did."""
        found = self.table.filter(pc.field("challenger") == challenger)
        if not len(found):
            return None
        return Window(self.path, self.policy, self.catalog, self.from_ms, found)

    def challenger_encoder(self) -> str:
        """Who made the contexts that the challenger saw; several, where there were several."""
        own = pc.coalesce(self.table["challenger_encoder"], self.table["encoder"])
        return ", ".join(sorted(pc.unique(own).to_pylist()))

    def data(self) -> LoggedData:
        """As arrays."""
        return LoggedData.of(self.table)


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """The rows that are judged, as arrays."""

    pair: Pair  # challenger against champion
    arm: Index  # (n,) by position in the log's ids
    reward: Vector  # (n,) NaN where missing
    predicted_reward: Vector  # (n, k)
    components: Vector  # (n, 3) quality, s(latency), s(cost); NaN where missing
    predicted: Vector  # (n, k, 3) of these
    error: Mask  # (n,)
    reported: Mask  # (n,) anything has arrived
    tasks: NDArray[np.str_] | None  # (n,)
    newest_ms: int

    def __len__(self) -> int:
        return len(self.arm)


def judged_rounds(
    data: LoggedData,
    champion: str,
    candidate: Vector,
    weights: Weights | None,
    scales: Scales,
    tasks: Sequence[str] | None,
) -> Rounds:
    """The rows in which `champion` acted, and the candidate's pmf (n, kmax) is known."""
    # The outcome of an arm that was not executed is unknown, like one that never came. To leave the
    # row out instead would favour arms whose failures made the caller take another.
    data = replace(
        data,
        outcomes=np.where(data.executed[:, None], data.outcomes, np.nan),
        error=data.error & data.executed,
    )
    quality, latency_ms, cost_usd = data.outcomes.T
    y = objective.components(quality, latency_ms, cost_usd, data.error, scales)
    padding = data.actions < 0
    acting = target.champion(data)
    mine = (
        (np.array(data.versions, dtype=object) == champion)
        & (np.isfinite(candidate) | padding).all(axis=1)
        & np.isfinite(acting).all(axis=1)
    )
    mine[data.frontier() :] = False
    quality, latency_ms, cost_usd = data.predicted.reshape(-1, 3).T
    no_error = np.zeros(data.actions.size, dtype=bool)
    predicted = objective.components(quality, latency_ms, cost_usd, no_error, scales)
    predicted = predicted.reshape(*data.actions.shape, 3)
    rewards = data.predicted_rewards(weights, scales)
    other = np.where(padding, 0.0, candidate)[mine]
    acting = acting[mine]
    _check_pmfs(acting, other)
    chosen = (data.actions == data.arm[:, None])[mine].argmax(axis=1)
    return Rounds(
        pair=Pair(other, np.maximum(acting, 0.0), data.pmf[mine], chosen),
        arm=data.arm[mine],
        reward=data.rewards(weights, scales)[mine],
        predicted_reward=np.clip(np.nan_to_num(rewards[mine], nan=UNKNOWN), 0.0, 1.0),
        components=y[mine],
        predicted=np.clip(np.nan_to_num(predicted[mine], nan=UNKNOWN), 0.0, 1.0),
        error=data.error[mine],
        reported=(data.error | ~np.isnan(data.outcomes).all(axis=1))[mine],
        tasks=None if tasks is None else np.array(tasks, dtype=np.str_)[mine],
        newest_ms=int(data.made_at_ms[mine].max(initial=0)),
    )


def _check_pmfs(acting: Vector, other: Vector) -> None:
    checks = {
        "the pmf must be a mixture of champion and challenger": (acting < -TOLERANCE).any(axis=1),
        "the challenger's pmf must be >= 0 and sum to 1": (other < 0).any(axis=1)
        | ~(np.abs(other.sum(axis=1) - 1) <= TOLERANCE),
    }
    found = [f"{what}: {wrong.sum():,} rows" for what, wrong in checks.items() if wrong.any()]
    if found:
        raise ValueError("; ".join(found))
