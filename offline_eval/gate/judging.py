"""May a challenger become champion? Log and settings in, a verdict with reasons out.

A pure function: the time is an argument, nothing is read or stored. It decides by a betting
e-process on the difference challenger - champion, so it may be asked after every row, and by
guardrails and checks of the log that can keep a version from passing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from offline_eval.gate import checks
from offline_eval.gate.difference import Difference, Trail
from offline_eval.gate.rows import Rounds, judged_rounds
from offline_eval.gate.verdict import Settings, Verdict, conclude
from offline_eval.log import problems
from offline_eval.log.checking import check_log
from offline_eval.log.data import LoggedData, Vector
from policy.objective import Scales, Weights

FIRST_WINDOW = 0.8  # of a version's alpha; its later windows share the rest


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Two versions on one window of a log: what a verdict is asked about.

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
    """

    data: LoggedData
    champion: str
    challenger: str
    scales: Scales
    weights: Weights | None = None
    tasks: Sequence[str] | None = None
    fingerprints: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    windows_before: int = 0
    candidate: Vector | None = None

    def rounds(self) -> Rounds:
        """The rows in which both versions were at work.

        Raises
        ------
        ValueError
            If the log is not one that may be evaluated, or the rest doesn't fit it.
        """
        self._check()
        pmf = self._candidate()
        return judged_rounds(self.data, self.champion, pmf, self.weights, self.scales, self.tasks)

    def alpha(self, settings: Settings) -> float:
        """What this window has of a version's alpha: the first 0.8, then 0.2 / (w (w + 1)) for
        w = 1, 2, ..., which sums to 1 over all windows."""
        w = self.windows_before
        share = FIRST_WINDOW if w == 0 else (1.0 - FIRST_WINDOW) / (w * (w + 1))
        return settings.alpha * share

    def _candidate(self) -> Vector:
        """(n, kmax) what was given, or what the challenger logged; NaN where it didn't watch."""
        data, given = self.data, self.candidate
        if given is None:
            watched = np.array(data.challengers, dtype=object) == self.challenger
            return np.where(watched[:, None], data.challenger_pmf, np.nan)
        if given.shape != data.pmf.shape:
            raise ValueError(f"candidate must be {data.pmf.shape}, got {given.shape}")
        return given

    def _check(self) -> None:
        data, tasks = self.data, self.tasks
        check_log(data)
        if len(set(data.policies)) > 1:  # whose versions may be called alike
            raise ValueError(f"the log must be of one policy, got {sorted(set(data.policies))}")
        if data.propensities != "logged":
            raise ValueError(
                "a version is judged by what was drawn: these propensities are estimated"
            )
        if (data.stands_for != 1.0).any():
            where = problems.rows(data.stands_for != 1.0, data.decision_ids)
            raise ValueError(f"bets are on single decisions, but rows stand for several: {where}")
        if (np.diff(data.made_at_ms) < 0).any():
            raise ValueError("rows must be in the order in which they were decided")
        if tasks is not None and len(tasks) != len(data):
            raise ValueError(f"tasks must name all {len(data)} rows, got {len(tasks)}")
        if self.windows_before < 0:
            raise ValueError(f"windows_before must be >= 0, got {self.windows_before}")


def judge(case: Case, now_ms: int, settings: Settings | None = None) -> Verdict:
    """The verdict on a case's challenger against its champion, from the rows where both were.

    Raises
    ------
    ValueError
        If the log is not one that may be evaluated, or the rest of the case doesn't fit it.
    """
    settings = settings or Settings()
    data, rounds = case.data, case.rounds()
    found = [
        *checks.fingerprints(case.fingerprints),
        checks.recency(rounds, data, now_ms, settings),
    ]
    if len(rounds):
        found += [checks.calibration(data, settings), checks.overlap(rounds, settings)]
    if not len(rounds) or found[-1].state == "not evaluable":
        nothing = {"rounds": float(len(rounds)), "low": -math.inf, "high": math.inf}
        return conclude(found, None, nothing, settings)
    arrival = checks.arrival(rounds, settings)
    difference = Difference.of(
        rounds, case.alpha(settings), settings.share_to_try, pessimistic=arrival.state == "blocks"
    )
    found += [
        checks.settled(arrival, difference),
        *checks.shown(difference),
        *checks.guardrails(rounds, settings),
    ]
    return conclude(found, difference, difference.figures(), settings)


def trail(case: Case, settings: Settings | None = None) -> Trail:
    """How the evidence grew that `judge` decides by; from the rounds that have their reward."""
    return Trail.of(case.rounds(), case.alpha(settings or Settings()))
