"""What the gate looks at beside the difference itself: each can keep a version from passing.

Log and rounds in, checks out; what follows from them is for `verdict` to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from offline_eval.estimating import diagnostics
from offline_eval.estimating.intervals import EProcess
from offline_eval.gate.difference import Difference, chunks
from offline_eval.gate.rows import Rounds
from offline_eval.gate.terms import BETS, Pair, plain_terms, terms_for
from offline_eval.gate.verdict import DAY_MS, Check, Settings
from offline_eval.log.data import LoggedData, Vector

EXAMPLES = 3  # of miscalibrated groups that a reason names


def fingerprints(fingerprints: Mapping[str, tuple[str, str]]) -> list[Check]:
    return [
        Check(
            name,
            "ok" if logged == own else "fails",
            f"the {name} is the log's"
            if logged == own
            else f"the {name} differs: {logged} in the log, {own} in the challenger",
        )
        for name, (logged, own) in fingerprints.items()
    ]


def recency(rounds: Rounds, data: LoggedData, now_ms: int, settings: Settings) -> Check:
    if not len(rounds):
        none = "there is no closed or complete row in which both versions were at work"
        waiting = int((~data.closed).sum())
        if waiting:
            none += (
                f": {waiting:,} rows are open, which wait for quality, latency and cost until the"
                " reward window has passed, and those behind wait with them"
            )
        return Check("rows", "not evaluable", none)
    age_days = (now_ms - rounds.newest_ms) / DAY_MS
    old = now_ms - rounds.newest_ms > settings.max_age_ms
    return Check(
        "recency",
        "fails" if old else "ok",
        f"the newest row is {age_days:.1f} days old"
        + (f", more than {settings.max_age_ms / DAY_MS:g}" if old else ""),
        {"age_days": age_days, "newest_ms": float(rounds.newest_ms)},
    )


def calibration(data: LoggedData, settings: Settings) -> Check:
    """Of all rows, whoever was champion: what is logged must be what was drawn."""
    chosen = (data.actions == data.arm[:, None]).argmax(axis=1)
    groups, log_e = diagnostics.calibration(data.pmf, data.actions, chosen, data.ids)
    figures = {"log_e": log_e}
    if log_e < -math.log(settings.calibration_alpha):
        return Check("propensities", "ok", "arms were drawn as often as logged", figures)
    worst = sorted(groups, key=lambda group: -group.log_e)[:EXAMPLES]
    told = "; ".join(f"{g.name}: {g.drawn:,} drawn, {g.expected:,.0f} expected" for g in worst)
    return Check(
        "propensities",
        "fails",
        f"arms were not drawn with the logged probability ({told})",
        figures,
    )


def overlap(rounds: Rounds, settings: Settings) -> Check:
    pair = rounds.pair
    found = diagnostics.overlap(pair.better, pair.drawn, pair.chosen)
    figures = {
        "unsupported": found.unsupported,
        "effective_rows": found.effective,
        "max_weight": found.max_weight,
    }
    if not found.evaluable:
        return Check(
            "overlap",
            "not evaluable",
            f"in {len(rounds):,} rounds no arm was drawn that the challenger would choose: it needs"
            " a share of the draw",
            figures,
        )
    if found.unsupported > settings.unsupported_mass:
        return Check(
            "overlap",
            "blocks",
            f"{found.unsupported:.1%} of the challenger's choices could not be drawn, more than"
            f" {settings.unsupported_mass:.1%}",
            figures,
        )
    return Check(
        "overlap",
        "ok",
        f"{found.effective:,.0f} effective rows of {len(rounds):,}, weights up to"
        f" {found.max_weight:.1f}",
        figures,
    )


def arrival(rounds: Rounds, settings: Settings) -> Check:
    arrived = ~np.isnan(rounds.reward)
    ids = [str(arm) for arm in range(int(rounds.arm.max()) + 1)]
    found = diagnostics.arrival(rounds.arm, arrived, ids)
    differs = found.p_value < settings.arrival_p_value and found.spread > settings.arrival_spread
    missing = float(1.0 - arrived.mean())
    figures = {"missing": missing, "spread": found.spread, "p_value": found.p_value}
    if differs:
        return Check(
            "arrival",
            "blocks",
            f"{missing:.1%} of rewards are missing, and not alike: arms differ by"
            f" {found.spread:.1%}, so outcomes may be missing because of what they were",
            figures,
        )
    return Check("arrival", "ok", f"{missing:.1%} of rewards are missing", figures)


def shown(difference: Difference) -> tuple[Check, Check]:
    alpha, better, worse = difference.alpha, difference.better, difference.worse
    if not len(difference.terms):
        none = f"no reward has come in {difference.rounds:,} rounds"
        unknown = Check("difference", "not evaluable", none)
        return unknown, Check("recent half", "not evaluable", "the later half has no reward")
    rounds = f"{len(difference.terms):,} rounds"
    told = f"{_signed(difference.estimate)} in {rounds} ({_bounds(difference)})"
    if better.refutes(alpha) and worse.refutes(alpha):
        shown = Check("difference", "blocks", f"better at times and worse at others: {told}")
    elif better.refutes(alpha):
        shown = Check("difference", "ok", f"the challenger is better: {told}")
    elif worse.refutes(alpha):
        shown = Check("difference", "fails", f"the challenger is worse: {told}")
    else:
        shown = Check("difference", "blocks", f"not shown to be better: {told}")
    late = f"the later half of the rows estimates {_signed(difference.recent)}"
    return shown, Check("recent half", "ok" if difference.recent > 0 else "blocks", late)


def settled(arrival: Check, difference: Difference) -> Check:
    """Unlike arrival doesn't block where the challenger is better whatever the missing were."""
    if arrival.state == "blocks" and difference.better.refutes(difference.alpha):
        return replace(arrival, state="ok", text=arrival.text + "; better even at the worst")
    low, high = difference.bounds
    within = f" (the difference is between {_signed(low)} and {_signed(high)} whatever they were)"
    return replace(arrival, text=arrival.text + within) if arrival.state == "blocks" else arrival


def guardrails(rounds: Rounds, settings: Settings) -> list[Check]:
    """Harm is a difference champion - challenger of what should be high, and the other way round
    for latency, cost and errors. Half of alpha is for these four, half for the task types."""
    up, down = rounds.pair.turned(), rounds.pair
    failed = np.where(rounds.reported, rounds.error.astype(np.float64), np.nan)
    y, guess = rounds.components, rounds.predicted
    never = np.zeros(guess.shape[:2])
    each = settings.guardrail_alpha / 2 / 4
    checks = [
        _guardrail("quality", up, y[:, 0], guess[..., 0], settings.quality_margin, each),
        _guardrail("latency", down, y[:, 1], guess[..., 1], settings.latency_margin, each),
        _guardrail("cost", down, y[:, 2], guess[..., 2], settings.cost_margin, each),
        _guardrail("errors", down, failed, never, settings.error_margin, each),
    ]
    names = [] if rounds.tasks is None else np.unique(rounds.tasks).tolist()
    for name in names:
        rows = np.flatnonzero(rounds.tasks == name)
        checks.append(
            _guardrail(
                f"task type {name}",
                up[rows],
                rounds.reward[rows],
                rounds.predicted_reward[rows],
                settings.task_margin,
                settings.guardrail_alpha / 2 / len(names),
            )
        )
    return checks


def _guardrail(
    name: str, harm: Pair, outcome: Vector, predicted: Vector, margin: float, alpha: float
) -> Check:
    """`harm` is turned so that a positive difference is one."""
    there = np.flatnonzero(~np.isnan(outcome))
    if not len(there):
        return Check(name, "ok", f"{name}: nothing is known of it")
    test = EProcess(margin, BETS)
    for rows in chunks(there):
        test.fold(terms_for(harm[rows], outcome[rows], predicted[rows], mean=margin))
    estimate = float(plain_terms(harm[there], outcome[there], predicted[there]).mean())
    figures = {"harm": estimate, "margin": margin, "log_e": test.peak, "rounds": float(len(there))}
    told = f"{name}: harm of {_signed(estimate)} in {len(there):,} rounds"
    if test.refutes(alpha):
        return Check(name, "fails", f"{told}, shown to be beyond the margin of {margin:g}", figures)
    return Check(name, "ok", f"{told}, not shown to be beyond {margin:g}", figures)


def _signed(difference: float) -> str:
    return f"{difference:+.4f}"


def _bounds(difference: Difference) -> str:
    confidence = 1.0 - 2 * difference.alpha
    return f"{confidence:.0%} within {_signed(difference.low)} and {_signed(difference.high)}"
