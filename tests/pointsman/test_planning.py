"""Plans on recorded outcomes: carried out, learned from, logged, and the log evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from offline_eval.estimating import rounds, target
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from pointsman.commands.evaluate import command as evaluate
from pointsman.commands.simulate import command
from pointsman.trying import outcomes as folders
from pointsman.trying.executing import Executor
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.planning import Planner, Played, rewards
from pointsman.trying.routers import asked
from pointsman.trying.simulate import silent
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog, Vector
from policy.config.plans import PlansConfig
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.plans.plan import Plan, Step, arms_of, kind_of
from policy.records import LoggedDecision, Outcome
from policy.values import models
from tests.offline_eval.rows import decision

CONFIG = PolicyConfig(
    objective=ObjectiveConfig(
        quality=0.7, latency=0.1, cost=0.2, latency_ref_ms=4_000.0, cost_ref_usd=0.004
    ),
    plans=PlansConfig(kinds=("hedge", "race", "cascade"), thresholds=(0.5,)),
)
ENCODER = models.default_encoder(CONFIG)
N = 240


def made(seed: int = 0, n: int = N) -> OutcomeSet:
    """Three arms whose answers to one query are good or bad together, more often than not."""
    rng = np.random.default_rng(seed)
    hard = rng.random((n, 1))
    quality = (0.5 * hard + 0.5 * rng.random((n, 3)) < (0.45, 0.6, 0.75)).astype(float)
    cost_usd = np.tile((0.0002, 0.001, 0.002), (n, 1))
    arms = tuple(
        Arm(id=name, provider="p", model="m", usd_per_mtok_in=price, usd_per_mtok_out=price)
        for name, price in (("small", 0.2), ("medium", 1.0), ("large", 2.0))
    )
    return OutcomeSet(
        name="made",
        query_ids=tuple(f"q{i}" for i in range(n)),
        texts=tuple(f"What is {i} plus {i}?" for i in range(n)),
        categories=tuple(("math", "qa")[i % 2] for i in range(n)),
        catalog=Catalog(arms),
        quality=quality,
        cost_usd=cost_usd,
        latency_ms=rng.lognormal(np.log(800.0), 0.5, (n, 3)),
    )


def played(outcomes: OutcomeSet, seed: int = 0) -> tuple[Executor, Played]:
    executor = Executor.of(outcomes, 0.8, seed)
    queries = asked(outcomes, ENCODER, True, silent)
    planner = Planner(executor, CONFIG, ENCODER, queries, ("hedge", "race", "cascade"))
    order = np.random.default_rng(seed).permutation(len(outcomes))
    return executor, planner.play(order, f"run{seed}")


def step(arm: str, **begin: float) -> Step:
    return Step(arm, **begin)  # type: ignore[arg-type]


PLANS = (
    (Plan("race:small|large", "race", (step("small", at_ms=0), step("large", at_ms=0))), 0.0),
    (
        Plan(
            "cascade:small>large@0.5",
            "cascade",
            (step("small", at_ms=0), step("large", quality_below=0.5)),
        ),
        0.5,
    ),
    (
        Plan(
            "hedge:small+large@0.95",
            "hedge",
            (step("small", at_ms=0), step("large", after_ms=900.0)),
        ),
        900.0,
    ),
)


@pytest.mark.parametrize(("plan", "at"), PLANS, ids=[plan.kind for plan, _ in PLANS])
def test_a_plan_row_by_row_is_what_it_is_for_all_rows(plan: Plan, at: float):
    """Both ways of carrying it out give the same quality, time and cost."""
    outcomes = made()
    executor = Executor.of(outcomes, 0.8, 0)
    whole = executor.always(plan.kind, 0, 2, at)
    one = decision(arm=plan.id, plan=plan)
    for row in range(60):
        came = executor.run(row, one)
        assert (came.quality, came.latency_ms, came.cost_usd) == pytest.approx(tuple(whole[row]))


def test_a_judge_is_right_as_often_as_it_says():
    """Four standard errors about 0.8; and its verdicts are the probability to be good."""
    outcomes = made(n=4_000)
    executor = Executor.of(outcomes, 0.8, 3)
    good = outcomes.quality >= 0.5
    right = (executor.verdict > 0.5) == good
    assert right.mean() == pytest.approx(0.8, abs=4 * 0.4 / np.sqrt(right.size))
    assert set(np.unique(executor.verdict).round(6)) == {0.2, 0.8}


def test_every_round_is_what_its_action_would_have_come_to():
    """Plans are drawn, and what a round earned is its action's outcome for that query."""
    outcomes = made()
    executor, run = played(outcomes)
    drawn = [kind_of(one.arm) for one in run.decisions]
    assert {"race", "cascade", "hedge", None} == set(drawn)
    every = all_rewards(outcomes, executor, run)
    own = [one.arms.index(one.arm) for one in run.decisions]
    assert np.array([row[at] for row, at in zip(every, own, strict=True)]) == pytest.approx(
        run.reward
    )


def all_rewards(outcomes: OutcomeSet, executor: Executor, run: Played) -> list[Vector]:
    """What each action of each round would have earned, (k,) a round."""
    known: dict[tuple[str, float], Vector] = {}
    found = []
    for row, one in zip(run.order.tolist(), run.decisions, strict=True):
        earned = []
        for action in one.arms:
            kind = kind_of(action)
            at = [outcomes.catalog.index(arm) for arm in arms_of(action)]
            if kind is None:
                column = at[0]
                outcome = [
                    outcomes.quality[row, column],
                    outcomes.latency_ms[row, column],
                    outcomes.cost_usd[row, column],
                ]
                earned.append(float(rewards(np.array([outcome]), CONFIG)[0]))
                continue
            level = 0.5 if kind == "cascade" else after_ms(one.plan, action)
            if (action, level) not in known:
                known[action, level] = rewards(executor.always(kind, *at, level), CONFIG)
            earned.append(float(known[action, level][row]))
        found.append(np.array(earned))
    return found


def after_ms(plan: Plan | None, action: str) -> float:
    """Of a hedge that was drawn; of others nobody asks here."""
    if plan is None or plan.id != action or plan.steps[1].after_ms is None:
        return 0.0
    return plan.steps[1].after_ms


def log_of(run: Played, path: Path) -> LoggedData:
    rows = (
        LoggedDecision(replace(one, made_at_ms=i), Outcome(*map(float, came), closed=True))
        for i, (one, came) in enumerate(zip(run.decisions, run.outcome, strict=True))
    )
    write_log(rows, str(path))
    return read_log(str(path))


@pytest.mark.slow
def test_the_log_tells_what_never_to_cascade_is_worth(tmp_path: Path):
    """The truth, which only the simulation knows, lies within the 95% interval in at least 6 of 8
    simulated logs (fewer have a chance of 0.0004), and the mean error within three of its
    standard errors of 0."""
    covered, differences, errors, variance = 0, [], [], 0.0
    for seed in range(8):
        outcomes = made(seed)
        executor, run = played(outcomes, seed)
        data = log_of(run, tmp_path / str(seed))
        pmf = target.never(data, ("cascade", "hedge"))
        every = all_rewards(outcomes, executor, run)
        truth = np.mean(
            [
                sum(pmf[i, j] * row[one.arms.index(data.ids[a])] for j, a in of_row(data, i))
                for i, (row, one) in enumerate(zip(every, run.decisions, strict=True))
            ]
        )
        reward = data.rewards(CONFIG.weights, CONFIG.scales)
        assert reward == pytest.approx(run.reward)
        estimate = rounds.estimates(rounds.of(data, pmf, reward))["ips"]
        interval = estimate.interval()
        covered += interval.low <= truth <= interval.high
        errors.append(interval.estimate - truth)
        variance += ((interval.high - interval.low) / 2 / 1.96) ** 2
        differences.append(abs(truth - run.reward.mean()))
    assert covered >= 6
    assert abs(sum(errors)) < 3 * np.sqrt(variance)
    assert max(differences) > 0.005  # it isn't simply what was logged


def of_row(data: LoggedData, row: int) -> list[tuple[int, int]]:
    return [(j, int(a)) for j, a in enumerate(data.actions[row]) if a >= 0]


def test_never_gives_the_rest_to_the_others(tmp_path: Path):
    """In proportion; where nothing else could be drawn, nobody can say."""
    _, run = played(made(n=30))
    data = log_of(run, tmp_path / "log")
    without = target.never(data)
    assert without.sum(axis=1) == pytest.approx(1.0)
    plan = np.array([kind_of(action) is not None for action in data.ids] + [False])
    assert (without[plan[data.actions]] == 0.0).all()
    alone = ~plan[data.actions] & (data.actions >= 0)
    ratio = np.where(alone, without / np.where(alone, data.pmf, 1.0), np.nan)
    assert np.nanmax(ratio, axis=1) == pytest.approx(np.nanmin(ratio, axis=1))
    only = replace(data, pmf=np.where(plan[data.actions], data.pmf, 0.0))
    with pytest.raises(ValueError, match="nothing else could be drawn"):
        target.never(only)


def test_simulate_plays_with_plans_and_without(tmp_path: Path):
    """The same rounds; figures on stdout, one JSON object, and a table for a person."""
    folders.save(made(n=60), tmp_path)
    asked_for = [str(tmp_path), "--plans", "cascade,race", "--shuffles", "2"]
    told = CliRunner().invoke(command, [*asked_for, "--json"])
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert (figures["rounds"], figures["shuffles"]) == (60, 2)
    assert figures["with_plans"]["plans"] > 0
    assert figures["without"]["plans"] == 0
    table = CliRunner().invoke(command, asked_for).stdout
    assert f"{figures['with_plans']['mean_reward']:.4f}" in table


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--plans", "relay"], "'relay' is none of fallback, hedge, race, cascade"),
        (["--plans", "race", "--warm", "5"], "--plans is for runs in process"),
        (["--plans", "race", "--judge", "0.3"], "--judge"),
        (["--plans", "hedge"], "a hedge needs latencies, which"),
    ],
)
def test_what_simulate_cant_play_is_said(tmp_path: Path, options: list[str], why: str):
    """In one line."""
    unknown = replace(made(n=20), latency_ms=np.full((20, 3), np.nan))
    folders.save(unknown, tmp_path)
    told = CliRunner().invoke(command, [str(tmp_path), *options])
    assert told.exit_code != 0
    assert why in told.output


def test_evaluate_values_the_policy_without_its_plans(tmp_path: Path):
    """By name, among the usual targets, and part by part to the same figure; a plan is a target by
    its id."""
    _, run = played(made(n=120))
    data = log_of(run, tmp_path / "log")
    drawn = next(one.arm for one in run.decisions if kind_of(one.arm) is not None)
    usual = evaluated(tmp_path)
    assert usual.keys() >= {"logged", "never:plans", "small", drawn}
    wanted = ["never:plans", "never:cascade"]
    some = evaluated(tmp_path, *wanted)
    streamed = evaluated(tmp_path, *wanted, stream=True)
    for name in wanted:
        figures = [one[name]["reward"]["snips"]["value"] for one in (some, streamed)]
        assert figures[0] == pytest.approx(figures[1], abs=1e-9)
    reward = data.rewards(None, PolicyConfig().scales)
    own = rounds.estimates(rounds.of(data, target.never(data), reward))["snips"]
    assert some["never:plans"]["reward"]["snips"]["value"] == pytest.approx(own.value)


def evaluated(folder: Path, *targets: str, stream: bool = False) -> dict[str, Any]:
    """What `pointsman evaluate --json` says of a log, under the built-in references."""
    options = [word for name in targets for word in ("--target", name)]
    told = CliRunner().invoke(
        evaluate,
        [str(folder / "log"), "--json", *options, *(["--stream"] if stream else [])],
        env={"POINTSMAN_CONFIG": str(folder / "none.toml")},
    )
    assert told.exit_code == 0, told.output
    found: dict[str, Any] = json.loads(told.stdout)["targets"]
    return found
