"""How fast the estimators are at a million rounds, beside Open Bandit Pipeline in the same run.

Both start from the same arrays: the target's pmf and the model's rewards (n, k), the arm that was
drawn, its propensity, its reward. Ours are timed from there, with the making of weights and v; the
time from weights and v, where they are at hand already, stands beside. Both check their input.
`benchmarks/oracle.py` says how to install obp; without it, only our own times are printed.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import oracle
from offline_eval import estimators
from offline_eval.estimators import Vector
from offline_eval.rounds import at_arm, expected, weights_of

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
    """The median, and what it returned."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        found = call()
        taken.append(time.perf_counter() - start)
    return median(taken), found


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
        whole_s, mine = seconds(whole, 5)
        terms_s, _ = seconds(from_weights, 5)
        row = {"estimator": name, "ms": 1e3 * whole_s, "from_weights_ms": 1e3 * terms_s}
        row |= {"obp_ms": None, "ratio": None}
        row |= {"from_weights_ratio": None, "difference": None}
        if obp is not None:
            theirs, arguments = OBP[name]
            call = getattr(obp, theirs)(**arguments).estimate_policy_value
            obp_s, value = seconds(partial(call, **given), 3)
            row |= {"obp_ms": 1e3 * obp_s, "ratio": obp_s / whole_s}
            row["from_weights_ratio"] = obp_s / terms_s
            row["difference"] = abs(value - mine.value)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print a table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    rows = measure(options.rounds, options.arms)
    print(f"{options.rounds:,} rounds, {options.arms} arms; medians")
    columns = ("ms", "from_weights_ms", "obp_ms", "ratio", "from_weights_ratio", "difference")
    print(f"{'estimator':12}" + "".join(f"{name:>19}" for name in columns))
    for row in rows:
        figures = [row[name] for name in columns]
        shown = ["-" if f is None else f"{f:.1e}" if 0 < f < 1e-3 else f"{f:.1f}" for f in figures]
        print(f"{row['estimator']:12}" + "".join(f"{figure:>19}" for figure in shown))
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
