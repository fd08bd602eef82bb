"""What a target policy would have drawn from, for each row of a log: pmfs (n, kmax).

They run parallel to the rows' action sets, 0 where those are padded. Knows no reward.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from features.profile import profile
from features.query import Hints
from offline_eval.log import problems
from offline_eval.log.checking import TOLERANCE
from offline_eval.log.data import LoggedData
from policy.choosing import explore
from policy.choosing.bandit import Bandit
from policy.objective import Weights
from policy.plans.plan import DRAWN, Kind, kind_of
from policy.policy import Policy
from policy.records import Vector

Index = NDArray[np.int64]
Positions = NDArray[np.intp]
Mask = NDArray[np.bool_]

NO_QUERY = profile(None, Hints())
_FROM_CONTEXT = ("linear", "nearest", "vw", "uniform", "fixed")


def logged(data: LoggedData) -> Vector:
    """The policy that made the log."""
    return data.pmf


def champion(data: LoggedData) -> Vector:
    """The champion's own pmf: what was drawn from, less the share that its challenger was given.

    NaN in rows where that isn't known, for no pmf of the challenger was logged or it had the whole
    draw. It is negative where the log contradicts itself.
    """
    share = data.share[:, None]
    mixed_in = np.where((data.actions < 0) | (share == 0.0), 0.0, data.challenger_pmf)
    own = np.full_like(data.pmf, np.nan)
    np.divide(data.pmf - share * mixed_in, 1.0 - share, out=own, where=share < 1.0)
    return np.where(np.abs(own) <= TOLERANCE, np.maximum(own, 0.0), own)  # rounding is no fault


def challenger(data: LoggedData) -> Vector:
    """The challenger's own pmf, as it was logged with each decision.

    Raises
    ------
    ValueError
        Where a row has none, or rows have those of several versions.
    """
    without: Mask = np.any(np.isnan(data.challenger_pmf) & (data.actions >= 0), axis=1)
    if without.any():
        raise ValueError(
            f"no challenger's pmf was logged: {problems.rows(without, data.decision_ids)}"
        )
    expect_one(data.challengers)
    return np.where(data.actions >= 0, data.challenger_pmf, 0.0)


def expect_one(challengers: Iterable[str | None]) -> None:
    """Refuse challengers of several versions."""
    versions = sorted({str(version) for version in challengers})
    if len(versions) > 1:
        raise ValueError(
            f"the rows have challengers of {len(versions)} versions ({', '.join(versions)}):"
            " narrow them down by time"
        )


def uniform(data: LoggedData) -> Vector:
    """Every arm of the action set alike."""
    return np.where(data.actions >= 0, 1.0 / data.counts[:, None], 0.0)


def one_arm(data: LoggedData, arm: str) -> Vector:
    """Always this arm; uniform where it isn't eligible, as the policy `fixed` does."""
    if arm not in data.ids:
        raise ValueError(f"arm {arm!r} is in no action set of the log")
    chosen = data.actions == data.ids.index(arm)
    return np.where(chosen.any(axis=1)[:, None], chosen.astype(np.float64), uniform(data))


def never(data: LoggedData, kinds: Collection[Kind] = DRAWN) -> Vector:
    """The policy that made the log without plans of these kinds: what they had goes to all other
    actions, in proportion to their own probability."""
    kind = np.array([kind_of(action) for action in data.ids] + [None], dtype=object)
    out = np.isin(kind, list(kinds))[data.actions]  # padding is -1, the last
    kept = np.where(out, 0.0, data.pmf)
    total = kept.sum(axis=1, keepdims=True)
    without: Mask = total[:, 0] == 0.0
    if without.any():
        raise ValueError(
            f"nothing else could be drawn: {problems.rows(without, data.decision_ids)}"
        )
    own: Vector = kept / total
    return own


def of_policy(data: LoggedData, policy: Policy) -> Vector:
    """What one state of a policy, floor included, makes of the logged contexts and action sets.

    Each row keeps the objective that it was decided under. Arms that the policy's catalog doesn't
    have get nothing, and neither do plans. A row that `policy` has learned from must not be among
    `data`.

    Raises
    ------
    ValueError
        If the policy decides from what the log doesn't hold: contexts of another encoder, a
        query's text, the caller's choice; or has none of a row's arms.
    """
    check(data, policy)
    positions = _positions(data, policy)
    pmf = np.zeros(data.actions.shape)
    for same in _alike(positions, data.weights):
        row = positions[same[0]]
        # A policy sees its arms in the order of its own catalog.
        columns = np.flatnonzero(row >= 0)
        columns = columns[np.argsort(row[columns])]
        index = row[columns]
        prompt, output = data.tokens[same].T[:, :, None]
        list_cost_usd = policy.catalog.list_cost_usd(prompt, output, index)
        weights = Weights(*data.weights[same[0]].tolist())
        known = [NO_QUERY] * len(same)  # a rule that reads it was refused
        ruling = policy.rule.rule(data.contexts[same], index, list_cost_usd, weights, known)
        floor = policy.config.floor
        pmf[np.ix_(same, columns)] = explore.with_floor(ruling.pmf, floor)
    return pmf


def _alike(positions: Positions, weights: Vector) -> list[Index]:
    """The rows of each action set and objective."""
    keys = np.ascontiguousarray(np.concatenate([positions, weights], axis=1))
    packed = keys.view(f"V{keys.dtype.itemsize * keys.shape[1]}").ravel()
    _, which = np.unique(packed, return_inverse=True)
    order = np.argsort(which, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(which[order])) + 1) if len(order) else []


def _positions(data: LoggedData, policy: Policy) -> Positions:
    """(n, kmax) in the policy's catalog, -1 for an arm that it doesn't have and for padding."""
    at = [policy.catalog.index(i) if i in policy.catalog else -1 for i in data.ids]
    positions: Positions = np.array([*at, -1])[data.actions]  # padding is -1, the last
    return positions


def check(data: LoggedData, policy: Policy) -> None:
    """Refuse a policy that decides from what the log doesn't hold, as `of_policy` does."""
    model = policy.config.model
    if model not in _FROM_CONTEXT:
        raise ValueError(
            f"a policy of model {model!r} decides from more than a context, and its pmfs were not"
            " logged: let it run as a challenger"
        )
    reads_context = isinstance(policy.rule, Bandit)
    if reads_context and policy.encoder.fingerprint != data.encoder:
        raise ValueError(
            f"the policy's encoder is {policy.encoder.fingerprint}, the log's contexts are of"
            f" {data.encoder or 'none'}, and its pmfs were not logged: all {len(data):,} rows"
        )
    strangers: Mask = np.all(_positions(data, policy) < 0, axis=1)
    if strangers.any():
        raise ValueError(
            "the policy has none of the eligible arms: "
            + problems.rows(strangers, data.decision_ids)
        )
