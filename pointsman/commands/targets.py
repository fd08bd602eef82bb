"""What `pointsman evaluate` can value, by name: on which rows, and what it would have drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np

from offline_eval.estimating import reward_models, rounds, target
from offline_eval.estimating.estimators import Estimate, not_evaluable
from offline_eval.estimating.replay import Candidate
from offline_eval.log.data import LoggedData, Vector
from pointsman.commands.logs import Opened
from policy.config.schema import PolicyConfig
from policy.plans.plan import DRAWN, Kind, kind_of

MOST_ARMS = 20  # that are targets when none is named
CONFIG = "config"
CHALLENGER = "challenger"
NEVER: Mapping[str, Sequence[Kind]] = {
    "never:plans": DRAWN,
    **{f"never:{kind}": (kind,) for kind in DRAWN},
}
"""The policy that made the log, without some of its plans."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The first rows teach, the others value; all of them value where nothing is to be taught."""

    taught: LoggedData
    valued: LoggedData
    reward: Vector  # (n,) of the valued rows
    q: Vector  # (n, kmax)


def usual(data: LoggedData) -> list[str]:
    """The targets that every log has an answer for."""
    arms = data.ids if len(data.ids) <= MOST_ARMS else ()
    if data.propensities == "unknown":
        return ["uniform", *arms]
    plans = ["never:plans"] if any(kind_of(action) for action in data.ids) else []
    return ["logged", "uniform", *plans, *arms, *([CHALLENGER] if any(data.challengers) else [])]


def is_config(name: str) -> bool:
    return name == CONFIG or name.startswith(f"{CONFIG}:")


def split(log: Opened, share: float) -> Split:
    n = len(log.data)
    first = round(n * share)
    if share and not 0 < first < n:
        raise click.ClickException(
            f"{log.path}: {n} rows are too few to learn from some and value on others"
        )
    rows = np.arange(first, n)
    valued = log.data.take(rows)
    reward = log.reward[rows]
    q = reward_models.ridge(valued, reward)
    return Split(log.data.take(np.arange(first)), valued, reward, q)


def part_of(name: str, split: Split) -> Split:
    """The rows that a target is valued on: a challenger's are those in which the last one ran."""
    of = split.valued.challengers
    if name != CHALLENGER or not any(of):
        return split
    last = next(version for version in reversed(of) if version is not None)
    rows = np.flatnonzero(np.array(of, dtype=object) == last)
    return Split(split.taught, split.valued.take(rows), split.reward[rows], split.q[rows])


def pmf_of(name: str, log: Opened, split: Split) -> Vector:
    """What a target would have drawn from, in the rows that are valued."""
    if name == "logged":
        if log.data.propensities == "unknown":
            raise click.ClickException(f"{name}: {rounds.UNKNOWN}; its own mean needs no estimate")
        return target.logged(split.valued)
    if name == "uniform":
        return target.uniform(split.valued)
    if name == CHALLENGER:
        return target.challenger(split.valued)
    if name in NEVER:
        return target.never(split.valued, NEVER[name])
    if not is_config(name):
        return target.one_arm(split.valued, name)
    which = name.partition(":")[2] or log.name
    if which not in log.config.policies:
        known = ", ".join(log.config.policies)
        raise click.ClickException(f"{log.file}: there is no policy {which!r} (known: {known})")
    try:
        return _learned(name, log.config.policies[which], log, split)
    except ValueError as error:
        raise click.ClickException(f"{name}: {error}") from error


def _learned(name: str, config: PolicyConfig, log: Opened, split: Split) -> Vector:
    """Of a configuration that has learned the first part of the log, and stands still then."""
    candidate = Candidate.of(name, config, log.config.arms)
    policy = candidate.policy(candidate.taught(split.taught))
    return target.of_policy(candidate.asked(split.valued, log.policy.weights), policy)


def value_of(
    name: str, config: PolicyConfig, log: Opened, split: Split, estimator: str
) -> Estimate:
    try:
        pmf = _learned(name, config, log, split)
    except ValueError as error:
        return not_evaluable(str(error))
    return rounds.estimates(rounds.of(split.valued, pmf, split.reward, split.q))[estimator]
