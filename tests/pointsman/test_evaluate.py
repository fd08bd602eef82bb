"""`pointsman evaluate` and `pointsman replay`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from offline_eval.estimating import estimators
from offline_eval.log.writing import write_log
from pointsman.commands import evaluate, replay
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import DAY_MS, NOON
from tests.pointsman.evaluated import (
    ARMS,
    CONFIG,
    GOOD,
    POLICY,
    N,
    faulty,
    figures,
    rows,
    run,
    written,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and the configuration of its arms, in one folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    return written(folder)


def test_usual_targets_in_figures(whole: Path):
    """The log's own policy, uniform, each arm; every estimator has an interval that holds the
    truth."""
    told = figures(whole, "--weights", "1,0,0")
    assert (told["rows"], told["valued"], told["taught"]) == (N, N, 0)
    assert list(told["targets"]) == ["logged", "uniform", *ARMS]
    for name, truth in GOOD.items():
        one = told["targets"][name]
        assert set(one["reward"]) == set(evaluate.ESTIMATORS)
        assert one["reward"]["snips"]["low"] < truth < one["reward"]["snips"]["high"]
        assert one["quality"]["value"] == pytest.approx(one["reward"]["snips"]["value"])
        assert one["latency_ms"]["value"] == pytest.approx(500.0)
        assert one["cost_usd"]["value"] == pytest.approx(0.004)
        assert one["effective_sample_size"] == pytest.approx(N / 3, rel=0.2)
        assert one["unsupported"] == 0.0
    assert told["targets"]["logged"]["reward"]["snips"]["value"] == pytest.approx(
        told["logged"]["reward"]
    )


def test_the_text_is_one_screen(whole: Path):
    """Head, a line per target, each estimator beside it."""
    lines = run(whole).output.splitlines()
    assert lines[0].endswith(
        "600 rows of policy default, 3 arms, 2024-10-04 12:00 to 2024-10-04 21:59 UTC"
    )
    assert lines[2].startswith("the log itself: reward 0.")
    table = [line.split() for line in lines]
    assert table[4][:4] == ["target", "dr", "95%", "interval"]
    assert [line[0] for line in table[5:10]] == ["logged", "uniform", *ARMS]
    assert len(lines) < 25
    assert max(map(len, lines[2:])) < 110


def test_config_learns_the_first_part_and_is_valued_on_the_rest(whole: Path):
    """It finds the best arm there, as it has not seen the rows that value it."""
    told = figures(whole, "--target", "config", "--target", "logged", "--train-share", 0.25)
    assert (told["taught"], told["valued"]) == (150, 450)
    learned = told["targets"]["config"]["reward"]["dr"]
    assert learned["low"] > told["targets"]["logged"]["reward"]["dr"]["high"]
    named = figures(whole, "--target", "config:default", "--train-share", 0.25)
    assert named["targets"]["config:default"]["reward"]["dr"] == learned


def test_what_is_counted_may_be_said_afterwards(whole: Path):
    """By weights or by a preset: s(0.004 / 0.01) is 0.4 and s(500 / 10,000) is 0.05."""
    by_cost = figures(whole, "--weights", "0,0,1")["logged"]["reward"]
    assert by_cost == pytest.approx(0.6)
    told = figures(whole, "--objective", "fast")["logged"]
    expected = 0.5 * told["quality"] + 0.4 * 0.95 + 0.1 * 0.6
    assert told["reward"] == pytest.approx(expected)
    own = figures(whole)["logged"]
    assert own["reward"] == pytest.approx(0.7 * own["quality"] + 0.15 * 0.95 + 0.15 * 0.6)


def test_a_range_of_time(whole: Path):
    """From a time on, before another; UTC unless said otherwise."""
    told = figures(whole, "--from", "2024-10-04T13:00", "--to", "2024-10-04T16:00+01:00")
    assert told["rows"] == 120
    assert told["from_ms"] == NOON + 3_600_000


def test_estimators_and_intervals_are_chosen(whole: Path):
    """The first named estimator is the main one; bootstrap is near Student-t."""
    given = ("--estimator", "snips", "--estimator", "ips", "--target", "a")
    told = figures(whole, *given, "--interval", "bootstrap")["targets"]["a"]["reward"]
    assert list(told) == ["snips", "ips"]
    usual = figures(whole, *given)["targets"]["a"]["reward"]
    assert told["ips"]["low"] == pytest.approx(usual["ips"]["low"], abs=0.02)
    assert "  snips " in run(whole, *given).output


def test_a_challenger_is_a_usual_target(tmp_path: Path):
    """Where its pmf was logged with the decisions."""
    shadow = {"challenger": "4", "challenger_pmf": np.array([0.8, 0.1, 0.1])}
    write_log(rows(**shadow), str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    told = figures(tmp_path, "--weights", "1,0,0")["targets"]["challenger"]["reward"]["snips"]
    assert told["low"] < 0.8 * 0.9 + 0.1 * 0.5 + 0.1 * 0.1 < told["high"]


def test_few_rows_warn(tmp_path: Path):
    """An interval that can't be trusted says so, in the table and below it."""
    write_log(rows(40), str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    told = run(tmp_path, "--target", "c").output
    assert evaluate.MARKED in told
    assert "c: few rows carry the estimate" in told


def test_what_is_biased_is_marked(whole: Path):
    """However many rows there are: the direct method's terms don't know what its model misses."""
    both = ("--estimator", "dm", "--estimator", "snips")
    lines = run(whole, *both, "--target", "logged").output.splitlines()
    told = next(line for line in lines if "±" in line and line.startswith("logged"))
    assert [cell.endswith("!") for cell in told.split() if "±" in cell] == [True, False]
    assert evaluate.MARKED in lines
    assert lines[-1] == f"logged: {estimators.BIASED['dm']}"
    reward = figures(whole, *both, "--target", "logged")["targets"]["logged"]["reward"]
    assert reward["dm"]["warning"] == estimators.BIASED["dm"]
    assert reward["snips"]["warning"] is None


def test_what_the_log_never_tried_is_unknown(tmp_path: Path):
    """Not 0, with the reason, and null in JSON."""
    some = {"arm": "a", "pmf": np.array([1.0, 0.0, 0.0]), "propensity": 1.0}
    write_log(rows(60, **some), str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    told = figures(tmp_path, "--target", "b")["targets"]["b"]
    assert told["reward"]["dr"]["value"] is None
    assert "never tried" in told["reward"]["dr"]["why"]
    assert told["unsupported"] == 1.0
    assert "b: 100.00% of the target's choices" in run(tmp_path, "--target", "b").output


@pytest.mark.parametrize("command", [evaluate.command, replay.command])
def test_without_a_reward_nothing_is_known(tmp_path: Path, command: Any):
    """It says why, and how many rows have none."""
    rest = [LoggedDecision(one.decision, Outcome(closed=True)) for one in rows(30)]
    write_log(rest, str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    done = run(tmp_path, "--plot", tmp_path / "x.png", command=command)
    assert done.exit_code == 0, done.output
    assert "30 have no reward" in done.output or "there are no rows" in done.output
    told = figures(tmp_path, command=command)
    assert "NaN" not in json.dumps(told)


def test_pictures(whole: Path, tmp_path: Path):
    """Of values and of a learning curve."""
    for command, file in ((evaluate.command, "values.png"), (replay.command, "curve.png")):
        done = run(whole, "--plot", tmp_path / file, command=command)
        assert done.exit_code == 0, done.output
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", ["frozen", "rejection", "dr"])
def test_a_learning_curve_rises(whole: Path, method: str):
    """A policy that learns earns more than uniform choice did; frozen it has learned before."""
    told = figures(
        whole, "--method", method, "--every", 20, "--weights", "1,0,0", command=replay.command
    )
    assert told["method"] == method
    assert told["reward"]["value"] > told["curve"][0]["logged"]
    assert len(told["curve"]) == 10
    assert told["curve"][-1]["arms"]["a"] > 0.6
    assert (told["learned"] > 0) == (method != "frozen")
    assert told["taught"] == (300 if method == "frozen" else 0)
    text = run(whole, "--method", method, "--every", 20, command=replay.command).output
    assert f"{method}: {told['met']:,} rows met" in text
    assert text.splitlines()[-1].split()[0] == "10"


def test_the_same_command_says_the_same(whole: Path):
    """All draws come from the seed."""
    first, again, other = (
        figures(whole, "--every", 20, "--seed", seed, command=replay.command) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["reward"] != other["reward"]


def test_the_path_is_the_services_log_by_default(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """POINTSMAN_LOG and POINTSMAN_CONFIG."""
    monkeypatch.setenv("POINTSMAN_LOG", str(whole / "log"))
    monkeypatch.setenv("POINTSMAN_CONFIG", str(whole / "pointsman.toml"))
    told = CliRunner().invoke(evaluate.command, ["--json"])
    assert json.loads(told.stdout)["rows"] == N


FAULTY_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"propensity": 0.0}, "propensities must be in (0, 1]: rows 0, 1, 2"),
    ({"propensity": 1.5}, "propensities must be in (0, 1]: rows 0, 1, 2"),
    ({"arm": "z"}, "action sets must hold the chosen arm, once: rows 0, 1, 2"),
    ({"pmf": np.full(3, 0.5)}, "pmfs must sum to 1: rows 0, 1, 2"),
]


@pytest.mark.parametrize(("changes", "says"), FAULTY_ROWS)
@pytest.mark.parametrize("name", ["evaluate", "replay"])
def test_a_log_that_cant_be_used_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, changes: Any, says: str
):
    """With what is wrong, and at which rows."""
    write_log(rows(3, **changes), str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    assert says in faulty(tmp_path, capsys, name=name)


def test_another_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where the candidate's pmfs were not logged; targets that read no context don't mind."""
    write_log(rows(20, encoder="another"), str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    says = "the log's contexts are of another, and its pmfs were not logged: all"
    assert says in faulty(tmp_path, capsys, "--target", "config")
    assert says in faulty(tmp_path, capsys, name="replay")
    assert run(tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "2030-01-01"), "no row from 2030-01-01 00:00"),
        (("--to", "2020-01-01"), "no row before 2020-01-01 00:00"),
        (("--policy", "other"), "no row of policy 'other'"),
        (("--target", "z"), "arm 'z' is in no action set of the log"),
        (("--target", "config:other"), "there is no policy 'other' (known: default)"),
        (("--target", "challenger"), "no challenger's pmf was logged: rows 0, 1, 2"),
        (("--sweep", "nowhere.toml"), "nowhere.toml: can't be read"),
        (("--plot", "nowhere/x.png"), "there is no folder nowhere"),
    ],
)
def test_a_wrong_question_is_one_line(
    whole: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
):
    """With what was asked for."""
    assert says in faulty(whole, capsys, *arguments)


def test_several_policies_must_be_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """They decided different things."""
    both = rows(5) + rows(5, policy="other", made_at_ms=NOON + DAY_MS)
    write_log(both, str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    assert "rows of 2 policies (default, other): choose with --policy" in faulty(tmp_path, capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--weights", "1,2"),
        ("--weights", "0,0,0"),
        ("--from", "yesterday"),
        ("--weights", "1,0,0", "--objective", "cheap"),
        ("--estimator", "x"),
    ],
)
def test_a_wrong_option_is_a_usage_error(whole: Path, arguments: tuple[str, ...]):
    """Exit code 2."""
    assert run(whole, *arguments).exit_code == 2


def test_a_bound_is_for_rejection(whole: Path):
    """It would do nothing elsewhere."""
    assert run(whole, "--bound", 2, command=replay.command).exit_code == 2
    told = figures(whole, "--bound", 3, "--method", "rejection", command=replay.command)
    assert told["cut"] == 0.0


def test_a_challenger_is_valued_where_the_last_one_ran(tmp_path: Path):
    """It joined on the way: the others are valued on all rows, and both is said."""
    some = rows(200)
    shadow = {"challenger": "2", "challenger_pmf": np.array([0.8, 0.1, 0.1])}
    late = [replace(one, decision=replace(one.decision, **shadow)) for one in some[120:]]
    write_log(some[:120] + late, str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    done = run(tmp_path)
    assert done.exit_code == 0, done.output
    assert "challenger: version 2, on the 80 of 200 rows in which it ran" in done.stdout
    targets = json.loads(run(tmp_path, "--json").stdout)["targets"]
    assert (targets["challenger"]["rows"], targets["logged"]["rows"]) == (80, 200)


def test_a_replay_compares_with_what_the_log_itself_earned(tmp_path: Path):
    """Outcomes of arms that were not drawn are nobody's, and it is said how many there were."""
    other = Outcome(1.0, 500.0, 0.004, executed_arm="c", closed=True)
    some = [
        replace(one, outcome=other) if one.decision.arm == "a" and i % 2 else one
        for i, one in enumerate(rows(300))
    ]
    write_log(some, str(tmp_path / "log"))
    (tmp_path / "pointsman.toml").write_text(CONFIG + POLICY)
    own = json.loads(run(tmp_path, "--json").stdout)["logged"]["reward"]
    done = run(tmp_path, "--method", "frozen", "--train-share", "0.001", command=replay.command)
    assert f"the log's own {own:.4f}" in done.stdout, done.output
    assert "left out: " in done.stdout
