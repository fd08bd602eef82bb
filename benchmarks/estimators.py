"""How fast the estimators are at a million rounds, beside Open Bandit Pipeline in the same run.

Two times of ours, each beside obp's. `ratio`: from what our estimators take, importance weights and
a model's values, which are made once for all of them. `ratio_whole`: from the arrays that obp
takes, pmfs and rewards (n, k), each estimator making its own; there both wait for memory most of
the time. Times are the best of several; both check their input and give the value to the last bits
(`difference`), ours with influence terms as well. Then the reward model and the checks that come
before, once for all estimators. `benchmarks/common/oracle.py` says how to install obp; without it,
only our own times are printed.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import oracle
from offline_eval.estimating import estimators, reward_models, target
from offline_eval.estimating import rounds as of_logs
from offline_eval.estimating.estimators import Vector
from offline_eval.estimating.rounds import at_arm, expected, weights_of
from offline_eval.log.data import LoggedData

Index = NDArray[np.int64]

CLIP, THRESHOLD, SHRINKAGE = 10.0, 5.0, 100.0
OBP: dict[str, tuple[str, dict[str, float]]] = {
    "ips": ("InverseProbabilityWeighting", {}),
    "clipped_ips": ("InverseProbabilityWeighting", {"lambda_": CLIP}),
    "snips": ("SelfNormalizedInverseProbabilityWeighting", {}),
    "dm": ("DirectMethod", {}),
    "dr": ("DoublyRobust", {}),
    "sndr": ("SelfNormalizedDoublyRobust", {}),
    "switch_dr": ("SwitchDoublyRobust", {"lambda_": THRESHOLD}),
    "dros": ("DoublyRobustWithShrinkage", {"lambda_": SHRINKAGE}),
}


def rounds(n: int, k: int) -> dict[str, Any]:
    """Uniformly logged rounds, as obp takes them."""
    rng = np.random.default_rng(0)
    pmf = rng.random((n, k))
    pmf /= pmf.sum(axis=1, keepdims=True)
    return {
        "reward": (rng.random(n) < 0.4).astype(np.float64),
        "action": rng.integers(k, size=n),
        "pscore": np.full(n, 1.0 / k),
        "action_dist": pmf[:, :, None],
        "estimated_rewards_by_reg_model": rng.random((n, k))[:, :, None],
        "position": np.zeros(n, dtype=np.int64),
    }


def uniform_log(n: int, k: int = 3, d: int = 4) -> LoggedData:
    """Uniformly drawn arms over random contexts; a fifth of the action sets lacks the last arm."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), dtype=np.float32)
    x[:, 0] = 1.0
    counts = np.where(np.arange(n) % 5 == 0, k - 1, k)
    held = np.arange(k) < counts[:, None]
    arm = (rng.random(n) * counts).astype(np.int64)
    return LoggedData(
        ids=tuple(f"arm-{i}" for i in range(k)),
        decision_ids=tuple(f"d{i}" for i in range(n)),
        policies=("p",) * n,
        versions=("1",) * n,
        catalogs=("c",) * n,
        encoder="e",
        made_at_ms=np.arange(n),
        contexts=x,
        arm=arm,
        actions=np.where(held, np.arange(k), -1),
        counts=counts,
        propensity=1.0 / counts,
        propensity_estimated=np.zeros(n, dtype=bool),
        pmf=np.where(held, 1.0 / counts[:, None], 0.0),
        predicted=np.full((n, k, 3), np.nan),
        challengers=(None,) * n,
        challenger_pmf=np.full((n, k), np.nan),
        share=np.zeros(n),
        tokens=np.zeros((n, 2)),
        weights=np.tile([1.0, 0.0, 0.0], (n, 1)),
        stands_for=np.ones(n),
        outcomes=np.full((n, 3), np.nan),
        quality_assumed=np.zeros(n, dtype=bool),
        reported=np.full((n, 3), np.nan),
        error=np.zeros(n, dtype=bool),
        teaches=np.ones(n, dtype=bool),
        executed=np.ones(n, dtype=bool),
        closed=np.ones(n, dtype=bool),
    )


def ours(given: dict[str, Any]) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """By estimator: from the arrays that obp takes, and from weights and v."""
    pmf, q = given["action_dist"][:, :, 0], given["estimated_rewards_by_reg_model"][:, :, 0]
    r, arm, p = given["reward"], given["action"], given["pscore"]

    def model() -> tuple[Vector, Vector, Vector, Vector]:
        weights, q_logged, v_target = all_of()
        return weights, r, q_logged, v_target

    def all_of() -> tuple[Vector, Vector, Vector]:
        return weights_of(pmf, arm, p), at_arm(q, arm), expected(pmf, q)

    w, qa, v = all_of()
    one = estimators
    return {
        "ips": (lambda: one.ips(weights_of(pmf, arm, p), r), lambda: one.ips(w, r)),
        "clipped_ips": (
            lambda: one.clipped_ips(weights_of(pmf, arm, p), r, CLIP),
            lambda: one.clipped_ips(w, r, CLIP),
        ),
        "snips": (lambda: one.snips(weights_of(pmf, arm, p), r), lambda: one.snips(w, r)),
        "dm": (lambda: one.dm(expected(pmf, q)), lambda: one.dm(v)),
        "dr": (lambda: one.dr(*model()), lambda: one.dr(w, r, qa, v)),
        "sndr": (lambda: one.sndr(*model()), lambda: one.sndr(w, r, qa, v)),
        "switch_dr": (
            lambda: one.switch_dr(*model(), THRESHOLD),
            lambda: one.switch_dr(w, r, qa, v, THRESHOLD),
        ),
        "dros": (
            lambda: one.dros(*model(), SHRINKAGE),
            lambda: one.dros(w, r, qa, v, SHRINKAGE),
        ),
    }


def seconds(call: Callable[[], Any], times: int) -> tuple[float, Any]:
    """The best, and what it returned."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        found = call()
        taken.append(time.perf_counter() - start)
    return min(taken), found


def measure(n: int, k: int) -> list[dict[str, Any]]:
    """One row per estimator; obp's figures are None where it can't be imported."""
    given = rounds(n, k)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            obp, _ = oracle.estimators()
    except ImportError as error:
        print(error)
        obp = None
    rows = []
    for name, (whole, from_weights) in ours(given).items():
        whole_s, mine = seconds(whole, 7)
        s, _ = seconds(from_weights, 15)
        row = {"estimator": name, "ms": 1e3 * s, "whole_ms": 1e3 * whole_s}
        row |= dict.fromkeys(("obp_ms", "ratio", "ratio_whole", "difference"))
        if obp is not None:
            theirs, arguments = OBP[name]
            call = getattr(obp, theirs)(**arguments).estimate_policy_value
            obp_s, value = seconds(partial(call, **given), 5)
            row |= {"obp_ms": 1e3 * obp_s, "ratio": obp_s / s, "ratio_whole": obp_s / whole_s}
            row["difference"] = abs(value - mine.value)
        rows.append(row)
    return rows


def measure_once_per_log(n: int, k: int, d: int = 64) -> dict[str, float]:
    """Seconds for what comes before: the model, then checks, weights and values; then all at once
    with tuning."""
    log = uniform_log(n, k, d)
    reward = np.random.default_rng(1).random(n)
    model_s, q = seconds(lambda: reward_models.ridge(log, reward), 1)
    pmf = target.uniform(log)
    rounds_s, made = seconds(lambda: of_logs.of(log, pmf, reward, q), 1)
    all_s, _ = seconds(lambda: of_logs.estimates(made), 1)
    return {"model_s": model_s, "rounds_s": rounds_s, "estimates_s": all_s}


def main() -> None:
    """Measure, print a table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    rows = measure(options.rounds, options.arms)
    print(f"{options.rounds:,} rounds, {options.arms} arms; best of several runs")
    columns = ("ms", "whole_ms", "obp_ms", "ratio", "ratio_whole", "difference")
    print(f"{'estimator':12}" + "".join(f"{name:>13}" for name in columns))
    for row in rows:
        figures = [row[name] for name in columns]
        shown = ["-" if f is None else f"{f:.1e}" if 0 < f < 1e-3 else f"{f:.1f}" for f in figures]
        print(f"{row['estimator']:12}" + "".join(f"{figure:>13}" for figure in shown))
    once = measure_once_per_log(options.rounds, options.arms)
    print("once per log: " + ", ".join(f"{name} {value:.2f}" for name, value in once.items()))
    if options.json:
        options.json.write_text(json.dumps({"estimators": rows, "once_per_log": once}))


if __name__ == "__main__":
    main()
