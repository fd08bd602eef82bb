"""What plans are worth: `python -m benchmarks.plans FOLDER [--latencies FILE] [--shuffles 5]
[--json FILE]`.

FOLDER holds full-information outcomes (see pointsman/trying/outcomes.py). Where they have no
latencies, these are drawn from FILE, a Parquet of timed requests (columns model, latency_ms): for
arms of up to 13, up to 49 and more billion parameters from three of its models, by size. Each
shuffle is cold, with the category as a hint, and snapshots as late as a service's; with plans and
without has the same rounds and the same judge.

- *cascade*: a judge that is right in 80% of its verdicts, threshold 0.5. `late` is the last quarter
  of the rounds; beside it what the best arm, and the best cascade of two fixed arms, would have
  earned there, both chosen in hindsight over all rounds.
- *hedge*: the 99th percentile of latency and the mean cost, beside the same policy without plans,
  after the first sixth of the rounds. A plan may be expected to cost 10% more than the best arm.
  `first_` figures are of the rounds with a plan, beside its first arm alone on the same queries.
  Then, without a policy, the best hedge of each arm that costs at most 10% more.
- *race*: under an objective of quality alone and one that weighs cost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pointsman.trying import outcomes as folders
from pointsman.trying.executing import Executor
from pointsman.trying.outcomes import OutcomeSet
from pointsman.trying.planning import Planner, Played, rewards
from pointsman.trying.routers import Asked, asked
from pointsman.trying.simulate import silent
from policy.arms.catalog import Vector
from policy.config.plans import PlansConfig
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.plans.candidates import HEDGE_AT
from policy.plans.latencies import Latencies
from policy.plans.plan import Kind, kind_of
from policy.values import models

RIGHT = 0.8
THRESHOLD = 0.5
SMALL, MIDDLING = 13, 49  # billions of parameters
ROUNDS = 6_000


@dataclass(frozen=True, slots=True)
class Run:
    """One shuffle of one part."""

    folder: Path
    latencies: Path | None
    part: str
    rounds: int
    number: int


@lru_cache(maxsize=1)
def load(folder: Path, latencies: Path | None) -> OutcomeSet:
    """A set with latencies, the same in every process."""
    outcomes = folders.load(folder)
    if latencies is None or "latency_ms" not in outcomes.missing:
        return outcomes
    table = pq.read_table(latencies, columns=["model", "latency_ms"]).to_pandas()
    by_model = {m: some.latency_ms.dropna().to_numpy() for m, some in table.groupby("model")}
    pools = sorted(by_model.values(), key=lambda some: float(np.median(some)))
    rng = np.random.default_rng(0)
    drawn = [rng.choice(pools[_size(arm)], len(outcomes)) for arm in outcomes.catalog.ids]
    return replace(outcomes, latency_ms=np.stack(drawn, axis=1).astype(np.float64))


def _size(arm: str) -> int:
    """0, 1 or 2: an arm's name tells its parameters, as in qwen2.5-7b."""
    words = [word for word in arm.replace("_", "-").split("-") if word[:-1].isdigit()]
    billions = max((int(word[:-1]) for word in words if word.endswith("b")), default=0)
    return 0 if billions <= SMALL else 1 if billions <= MIDDLING else 2


@lru_cache(maxsize=1)
def queries(folder: Path, latencies: Path | None) -> list[Asked]:
    outcomes = load(folder, latencies)
    encoder = models.default_encoder(PolicyConfig())
    return asked(outcomes, encoder, True, silent)


def objective(outcomes: OutcomeSet, weights: Mapping[str, float]) -> ObjectiveConfig:
    """These weights, with the references that the routing benchmarks have."""
    cost_ref_usd = float(outcomes.cost_usd.mean(axis=0).max())
    references = {"cost_ref_usd": cost_ref_usd, "latency_ref_ms": 20_000.0}
    return ObjectiveConfig.model_validate({**references, **weights})


PARTS: Mapping[str, tuple[Kind, Mapping[str, float], PlansConfig]] = {
    "cascade": (
        "cascade",
        {"quality": 0.9, "cost": 0.1},
        PlansConfig(kinds=("cascade",), thresholds=(THRESHOLD,)),
    ),
    "cascade, dear": (
        "cascade",
        {"quality": 0.7, "cost": 0.3},
        PlansConfig(kinds=("cascade",), thresholds=(THRESHOLD,)),
    ),
    "hedge": (
        "hedge",
        {"quality": 0.8, "latency": 0.2},
        PlansConfig(kinds=("hedge",), max_cost_ratio=1.1),
    ),
    "race": ("race", {"quality": 1.0}, PlansConfig(kinds=("race",))),
    "race, dear": ("race", {"quality": 0.6, "cost": 0.4}, PlansConfig(kinds=("race",))),
}


def play(run: Run) -> dict[str, float]:
    """The figures of one shuffle."""
    outcomes = load(run.folder, run.latencies)
    kind, weights, plans = PARTS[run.part]
    policy = PolicyConfig(objective=objective(outcomes, weights), plans=plans)
    executor = Executor.of(outcomes, RIGHT, run.number)
    order = np.random.default_rng(run.number).permutation(len(outcomes))[: run.rounds]
    encoder = models.default_encoder(policy)
    known = queries(run.folder, run.latencies)
    with_plans, without = (
        Planner(executor, policy, encoder, known, wanted).play(order, f"{run.part}.{run.number}")
        for wanted in ((kind,), ())
    )
    return FIGURES[kind](outcomes, policy, executor, with_plans, without)


def _late(played: Played, share: float) -> slice:
    return slice(len(played.order) - round(share * len(played.order)), None)


def _drawn(played: Played, part: slice) -> float:
    """The share of plans."""
    return float(np.mean([kind_of(made.arm) is not None for made in played.decisions[part]]))


def cascade(
    outcomes: OutcomeSet,
    policy: PolicyConfig,
    executor: Executor,
    with_plans: Played,
    without: Played,
) -> dict[str, float]:
    order, late = with_plans.order, _late(with_plans, 0.25)
    of_arms = [rewards(_of_each(outcomes, at), policy) for at in range(len(outcomes.catalog))]
    pairs = permutations(range(len(outcomes.catalog)), 2)
    fixed = [rewards(executor.always("cascade", a, b, THRESHOLD), policy) for a, b in pairs]
    arm = max(of_arms, key=lambda earned: float(earned[order].mean()))
    best = max(fixed, key=lambda earned: float(earned[order].mean()))
    return {
        "plans": float(with_plans.reward.mean()),
        "without": float(without.reward.mean()),
        "best_arm": float(arm[order].mean()),
        "best_cascade": float(best[order].mean()),
        "late_plans": float(with_plans.reward[late].mean()),
        "late_without": float(without.reward[late].mean()),
        "late_best_arm": float(arm[order[late]].mean()),
        "late_best_cascade": float(best[order[late]].mean()),
        "late_drawn": _drawn(with_plans, late),
    }


def _of_each(outcomes: OutcomeSet, at: int) -> Vector:
    """Quality, latency in ms and cost in USD (n, 3) of one arm."""
    of_each = (outcomes.quality, outcomes.latency_ms, outcomes.cost_usd)
    return np.stack([values[:, at] for values in of_each], axis=1)


def compared(
    outcomes: OutcomeSet,
    policy: PolicyConfig,
    executor: Executor,
    with_plans: Played,
    without: Played,
) -> dict[str, float]:
    late = _late(with_plans, 5 / 6)
    found: dict[str, float] = {}
    for name, played in (("plans", with_plans), ("without", without)):
        quality, latency_ms, cost_usd = played.outcome[late].T
        found |= {
            f"{name}_reward": float(played.reward[late].mean()),
            f"{name}_quality": float(quality.mean()),
            f"{name}_p50_ms": float(np.quantile(latency_ms, 0.5)),
            f"{name}_p99_ms": float(np.quantile(latency_ms, 0.99)),
            f"{name}_usd": float(cost_usd.mean()),
        }
    best = max(range(len(outcomes.catalog)), key=lambda at: float(outcomes.quality[:, at].mean()))
    return {
        **found,
        **_beside_first(outcomes, with_plans, late),
        "best_arm_quality": float(outcomes.quality[with_plans.order[late], best].mean()),
        "p99_ratio": found["plans_p99_ms"] / found["without_p99_ms"],
        "cost_ratio": found["plans_usd"] / found["without_usd"],
        "drawn": _drawn(with_plans, late),
    }


def _beside_first(outcomes: OutcomeSet, played: Played, late: slice) -> dict[str, float]:
    """Rounds in which a plan was drawn, beside its first arm alone on the same queries."""
    made = list(zip(played.order[late], played.decisions[late], played.outcome[late], strict=True))
    drawn = [(row, one.first_arm, came) for row, one, came in made if kind_of(one.arm) is not None]
    rows = np.array([row for row, _, _ in drawn])
    first = np.array([outcomes.catalog.index(arm) for _, arm, _ in drawn])
    came = np.array([came for _, _, came in drawn])
    alone_ms, alone_usd = outcomes.latency_ms[rows, first], outcomes.cost_usd[rows, first]
    return {
        "first_quality_lead": float((came[:, 0] - outcomes.quality[rows, first]).mean()),
        "first_p99_ms": float(np.quantile(alone_ms, 0.99)),
        "first_p99_ratio": float(np.quantile(came[:, 1], 0.99) / np.quantile(alone_ms, 0.99)),
        "first_usd_ratio": float(came[:, 2].mean() / alone_usd.mean()),
    }


def hedges(outcomes: OutcomeSet) -> dict[str, dict[str, float | str]]:
    """For each arm the hedge of the lowest 99th percentile that costs at most 10% more: quantiles
    as counted in the first quarter of the queries, figures from the others."""
    ids, first = outcomes.catalog.ids, len(outcomes) // 4
    seen = Latencies()
    for at, arm in enumerate(ids):
        seen.add([arm] * first, outcomes.latency_ms[:first, at])
    executor, found = Executor.of(outcomes, RIGHT, 0), {}
    for a, arm in enumerate(ids):
        usual = np.exp(np.log(outcomes.latency_ms[:first, a]).mean())
        after_ms = usual * np.exp(seen.spreads()[arm].at(np.array(HEDGE_AT)))
        alone = _of_each(outcomes, a)[first:]
        best: dict[str, float | str] = {"p99_ratio": np.inf}
        for b, (level, after) in product(range(len(ids)), zip(HEDGE_AT, after_ms, strict=True)):
            came = executor.always("hedge", a, b, float(after))[first:]
            p99 = float(np.quantile(came[:, 1], 0.99) / np.quantile(alone[:, 1], 0.99))
            usd = float(came[:, 2].mean() / alone[:, 2].mean())
            if b != a and usd <= 1.1 and p99 < float(best["p99_ratio"]):
                best = {
                    "alone_p50_ms": float(np.quantile(alone[:, 1], 0.5)),
                    "alone_p99_ms": float(np.quantile(alone[:, 1], 0.99)),
                    "second": ids[b],
                    "level": level,
                    "p99_ratio": p99,
                    "usd_ratio": usd,
                    "quality_lead": float((came[:, 0] - alone[:, 0]).mean()),
                }
        found[arm] = best
    return found


FIGURES: Mapping[Kind, Callable[..., dict[str, float]]] = {
    "cascade": cascade,
    "hedge": compared,
    "race": compared,
}


def summed(found: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard error over shuffles, with the leads, paired."""
    figures = {name: np.array([one[name] for one in found]) for name in found[0]}
    for lead, name, other in (
        ("late_lead_of_arm", "late_plans", "late_best_arm"),
        ("late_lead_of_cascade", "late_plans", "late_best_cascade"),
        ("late_lead_of_without", "late_plans", "late_without"),
    ):
        if name in figures:
            figures[lead] = figures[name] - figures[other]
    m = len(found)
    return {
        name: (float(of.mean()), float(of.std(ddof=1) / np.sqrt(m)) if m > 1 else float("nan"))
        for name, of in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latencies", type=Path, help="a Parquet of timed requests")
    parser.add_argument("--parts", nargs="*", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    runs = [
        Run(given.folder, given.latencies, part, given.rounds, number)
        for part in given.parts
        for number in range(given.shuffles)
    ]
    with multiprocessing.Pool(given.jobs) as pool:
        found = pool.map(play, runs, chunksize=1)
    told: dict[str, Any] = {}
    for part in given.parts:
        of_part = [one for run, one in zip(runs, found, strict=True) if run.part == part]
        told[part] = summed(of_part)
        print(f"{part}: {given.shuffles} x {given.rounds:,} rounds")
        for name, (mean, error) in told[part].items():
            print(f"  {name:24}{mean:14.6g} ± {error:.2g}")
    if "hedge" in given.parts:
        told["hedges"] = hedges(load(given.folder, given.latencies))
        for arm, one in told["hedges"].items():
            print(f"{arm}: {one}")
    if given.json is not None:
        given.json.write_text(json.dumps(told))
