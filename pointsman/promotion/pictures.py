"""What goes with a verdict: what both versions are estimated to earn, and pictures.

For reading: the gate decides by none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offline_eval.estimating import diagnostics, groups, one_target, reward_models, target
from offline_eval.estimating.estimators import Estimate, snips
from offline_eval.estimating.one_target import Valuation
from offline_eval.gate import judging
from offline_eval.log.data import LoggedData, Vector
from offline_eval.log.reading import fingerprint
from offline_eval.registry import Estimated
from pointsman.promotion.asking import Judged
from pointsman.promotion.report import Report

SHOWN = ("dr", "snips")  # of the reward, by falling efficiency
ALPHA = 0.05


def report(judged: Judged, path: str, at_ms: int) -> Report:
    """The page of a verdict on the log at `path`; without estimates where nothing was judged."""
    evaluated = judged.newest_ms is not None
    pmfs = _pmfs(judged) if evaluated else {}
    reward = judged.case.data.rewards(None, judged.case.scales)
    found = _valued(judged, pmfs, reward) if evaluated else {}
    return Report(
        verdict=judged.verdict,
        policy=judged.policy,
        version=judged.version,
        champion=judged.champion,
        at_ms=at_ms,
        log=fingerprint(judged.case.data, path),
        estimates=[one for name, value in found.items() for one in _estimates(name, value)],
        plots=_plots(judged, pmfs, reward, found) if evaluated else {},
    )


def _pmfs(judged: Judged) -> dict[str, Vector]:
    data, candidate = judged.case.data, judged.case.candidate
    own = target.challenger(data) if candidate is None else candidate
    return {judged.champion: target.champion(data), judged.version: own}


def _valued(judged: Judged, pmfs: Mapping[str, Vector], reward: Vector) -> dict[str, Valuation]:
    q = reward_models.ridge(judged.case.data, reward)
    return {
        version: one_target.value(judged.case.data, pmf, reward, judged.case.scales, q)
        for version, pmf in pmfs.items()
    }


def _estimates(version: str, value: Valuation) -> list[Estimated]:
    by_name = [("reward", name, value.reward[name]) for name in SHOWN]
    by_name += [(component, "snips", one) for component, one in value.outcomes.items()]
    return [
        Estimated(version, component, name, interval)
        for component, name, one in by_name
        if (interval := one.interval(ALPHA)) is not None
    ]


def _plots(
    judged: Judged,
    pmfs: Mapping[str, Vector],
    reward: Vector,
    found: Mapping[str, Valuation],
) -> dict[str, bytes]:
    from pointsman import plots  # noqa: PLC0415 - matplotlib takes half a second to load

    data, champion, version = judged.case.data, judged.champion, judged.version
    names = {champion: f"champion {champion}", version: f"challenger {version}"}
    trail = judging.trail(judged.case, judged.settings)
    rewards = {
        f"{name}, {estimator}": found[of].reward[estimator]
        for of, name in names.items()
        for estimator in SHOWN
    }
    chosen = (data.actions == data.arm[:, None]).argmax(axis=1)
    drawn, _ = diagnostics.calibration(data.pmf, data.actions, chosen, data.ids)
    figures = {
        "evidence.png": plots.evidence(trail),
        "reward.png": plots.values(rewards, ALPHA),
        "weights.png": plots.weights(found[version].rounds.weights),
        "arm-shares.png": plots.arm_shares(data, pmfs[version], names[version]),
        "calibration.png": plots.calibration(drawn),
    }
    if (tasks := judged.case.tasks) is not None:
        by_task = {names[of]: _by_task(data, tasks, pmf, reward) for of, pmf in pmfs.items()}
        figures["reward-by-task.png"] = plots.reward_by_task(by_task, ALPHA)
    return {name: plots.png(figure) for name, figure in figures.items()}


def _by_task(
    data: LoggedData, tasks: Sequence[str], pmf: Vector, reward: Vector
) -> dict[str, Estimate]:
    """A version's reward per task type."""
    return {
        task: snips(rounds.weights, rounds.reward, rounds.stands_for)
        for task, rounds in groups.per_group(data, tasks, pmf, reward).items()
    }
