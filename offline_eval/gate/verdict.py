"""May a challenger become champion? Log and settings in, a verdict with reasons out.

A pure function: the time is an argument, nothing is read or stored. It decides by a betting
e-process on the difference challenger - champion (evidence.py), so it may be asked after every row,
and by guardrails and checks of the log that can keep a version from passing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offline_eval.estimating import diagnostics
from offline_eval.estimating.intervals import EProcess
from offline_eval.gate.difference import BETS, Pair, plain_terms, terms_for
from offline_eval.gate.rows import Difference, Rounds, Trail, chunks, judged_rounds
from offline_eval.log import problems
from offline_eval.log.checking import check_log
from offline_eval.log.data import LoggedData
from policy.objective import Scales, Weights

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Answer = Literal["pass", "fail", "undecided"]
State = Literal["ok", "blocks", "fails", "not evaluable"]

DAY_MS = 86_400_000
FIRST_WINDOW = 0.8  # of a version's alpha; its later windows share the rest
EXAMPLES = 3  # of miscalibrated groups that a reason names


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gate asks for. Margins of latency and cost are shares of their reference values."""

    alpha: float = 0.05  # chance that a version that is never better passes, over all its looks
    guardrail_alpha: float = 0.05  # chance that any guardrail blocks without harm beyond its margin
    quality_margin: float = 0.02
    latency_margin: float = 0.05
    cost_margin: float = 0.05
    error_margin: float = 0.02
    task_margin: float = 0.05  # of reward, for each task type
    max_age_ms: int = 7 * DAY_MS  # of the newest row
    unsupported_mass: float = 0.01  # of the challenger's probability, where the log has none
    calibration_alpha: float = 0.001
    arrival_p_value: float = 0.001
    arrival_spread: float = 0.02  # between arms' shares of missing rewards, below which it's let be
    share_to_try: float = 0.1  # of the draw, that the advice is about

    def __post_init__(self) -> None:
        for name in ("alpha", "guardrail_alpha", "calibration_alpha", "share_to_try"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)!r}")
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `blocks` keeps a version from passing for now, `fails` for
    good; both say why."""

    name: str
    state: State
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rounds_needed` is how many more it would take at the rate so far, None where none would do;
    `rounds_with_share` the same if the challenger were given `share` of the draw."""

    verdict: Answer
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    figures: Mapping[str, float]
    rounds_needed: int | None = None
    share: float | None = None
    rounds_with_share: int | None = None


def judge(
    data: LoggedData,
    *,
    champion: str,
    challenger: str,
    scales: Scales,
    now_ms: int,
    weights: Weights | None = None,
    tasks: Sequence[str] | None = None,
    fingerprints: Mapping[str, tuple[str, str]] | None = None,
    windows_before: int = 0,
    candidate: Vector | None = None,
    settings: Settings | None = None,
) -> Verdict:
    """The verdict on `challenger` against `champion` (versions), from the rows where both were.

    Parameters
    ----------
    data
        One window of the log: from the last change of arms or prices, or detected drift, on.
    weights
        The objective; None judges each row by its own.
    tasks
        (n,) the task type of each row, each with its own guardrail.
    fingerprints
        What must be the same in the log and in the challenger, e.g. encoder and catalog:
        name -> (in the log, of the challenger).
    windows_before
        How many windows this version has been judged on before this one. They share one alpha.
    candidate
        (n, kmax) pmf of a challenger that did not watch, in the log's order of arms, from what it
        knew before each row; NaN for the rows that it was trained on. Then `challenger` is only a
        name.

    Raises
    ------
    ValueError
        If the log is not one that may be evaluated, or the arguments don't fit it.
    """
    settings = settings or Settings()
    _check(data, tasks, windows_before)
    candidate = _candidate(data, challenger, candidate)
    rounds = judged_rounds(data, champion, candidate, weights, scales, tasks)
    checks = [*_fingerprints(fingerprints or {}), _recency(rounds, data, now_ms, settings)]
    if len(rounds):
        checks += [_calibration(data, settings), _overlap(rounds, settings)]
    if not len(rounds) or checks[-1].state == "not evaluable":
        nothing = {"rounds": float(len(rounds)), "low": -math.inf, "high": math.inf}
        return _verdict(checks, None, nothing, settings)
    alpha = settings.alpha * _share_of_alpha(windows_before)
    arrival = _arrival(rounds, settings)
    difference = Difference.of(
        rounds, alpha, settings.share_to_try, pessimistic=arrival.state == "blocks"
    )
    checks += [_settled(arrival, difference), *_shown(difference), *_guardrails(rounds, settings)]
    return _verdict(checks, difference, difference.figures(), settings)


def trail(
    data: LoggedData,
    *,
    champion: str,
    challenger: str,
    scales: Scales,
    weights: Weights | None = None,
    windows_before: int = 0,
    candidate: Vector | None = None,
    settings: Settings | None = None,
) -> Trail:
    """How the evidence grew that `judge` decides by, with the same parameters; from the rounds that
    have their reward."""
    settings = settings or Settings()
    _check(data, None, windows_before)
    candidate = _candidate(data, challenger, candidate)
    rounds = judged_rounds(data, champion, candidate, weights, scales, None)
    return Trail.of(rounds, settings.alpha * _share_of_alpha(windows_before))


def _candidate(data: LoggedData, challenger: str, given: Vector | None) -> Vector:
    """(n, kmax) what was given, or what the challenger logged; NaN where it didn't watch."""
    if given is None:
        watched = np.array(data.challengers, dtype=object) == challenger
        return np.where(watched[:, None], data.challenger_pmf, np.nan)
    if given.shape != data.pmf.shape:
        raise ValueError(f"candidate must be {data.pmf.shape}, got {given.shape}")
    return given


def _check(data: LoggedData, tasks: Sequence[str] | None, windows_before: int) -> None:
    check_log(data)
    if len(set(data.policies)) > 1:  # whose versions may be called alike
        raise ValueError(f"the log must be of one policy, got {sorted(set(data.policies))}")
    if (data.stands_for != 1.0).any():
        where = problems.rows(data.stands_for != 1.0, data.decision_ids)
        raise ValueError(f"bets are on single decisions, but rows stand for several: {where}")
    if (np.diff(data.made_at_ms) < 0).any():
        raise ValueError("rows must be in the order in which they were decided")
    if tasks is not None and len(tasks) != len(data):
        raise ValueError(f"tasks must name all {len(data)} rows, got {len(tasks)}")
    if windows_before < 0:
        raise ValueError(f"windows_before must be >= 0, got {windows_before}")


def _fingerprints(fingerprints: Mapping[str, tuple[str, str]]) -> list[Check]:
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


def _recency(rounds: Rounds, data: LoggedData, now_ms: int, settings: Settings) -> Check:
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


def _calibration(data: LoggedData, settings: Settings) -> Check:
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


def _overlap(rounds: Rounds, settings: Settings) -> Check:
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


def _arrival(rounds: Rounds, settings: Settings) -> Check:
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


def _shown(difference: Difference) -> tuple[Check, Check]:
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


def _settled(arrival: Check, difference: Difference) -> Check:
    """Unlike arrival doesn't block where the challenger is better whatever the missing were."""
    if arrival.state == "blocks" and difference.better.refutes(difference.alpha):
        return replace(arrival, state="ok", text=arrival.text + "; better even at the worst")
    low, high = difference.bounds
    within = f" (the difference is between {_signed(low)} and {_signed(high)} whatever they were)"
    return replace(arrival, text=arrival.text + within) if arrival.state == "blocks" else arrival


def _guardrails(rounds: Rounds, settings: Settings) -> list[Check]:
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


def _verdict(
    checks: Sequence[Check],
    difference: Difference | None,
    figures: Mapping[str, float],
    settings: Settings,
) -> Verdict:
    failed = [check.text for check in checks if check.state == "fails"]
    open_ = [check.text for check in checks if check.state in ("blocks", "not evaluable")]
    if failed:
        return Verdict("fail", tuple(failed), tuple(checks), figures)
    if not open_:
        shown = tuple(check.text for check in checks if check.name in ("difference", "recent half"))
        return Verdict("pass", shown, tuple(checks), figures)
    needed = difference.rounds_needed() if difference is not None else None
    if difference is None or not needed:
        if difference is not None and needed is None:
            open_.append("at the present estimate more rounds would not show it")
        return Verdict("undecided", tuple(open_), tuple(checks), figures)
    told = f"at the rate so far it would take about {_round_up(needed):,} more rounds"
    share = with_share = None
    if difference.shortening > 1.05:
        share, with_share = settings.share_to_try, _round_up(needed / difference.shortening)
        told += f", or {with_share:,} if the challenger were given {share:.0%} of the draw"
    return Verdict(
        "undecided", (*open_, told), tuple(checks), figures, _round_up(needed), share, with_share
    )


def _share_of_alpha(windows_before: int) -> float:
    """Sums to 1 over all windows: 0.8, then 0.2 / (w (w + 1)) for w = 1, 2, ..."""
    w = windows_before
    return FIRST_WINDOW if w == 0 else (1.0 - FIRST_WINDOW) / (w * (w + 1))


def _round_up(rounds: float) -> int:
    """To two digits: more would claim too much.

    >>> _round_up(1234.0)
    1300
    """
    digits = max(math.floor(math.log10(max(rounds, 1.0))) - 1, 0)
    return int(math.ceil(rounds / 10**digits) * 10**digits)


def _signed(difference: float) -> str:
    return f"{difference:+.4f}"


def _bounds(difference: Difference) -> str:
    confidence = 1.0 - 2 * difference.alpha
    return f"{confidence:.0%} within {_signed(difference.low)} and {_signed(difference.high)}"
