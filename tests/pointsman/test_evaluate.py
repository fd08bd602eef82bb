"""`pointsman evaluate` and `pointsman replay`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from offline_eval.estimating import estimators
from offline_eval.log.writing import write_log
from pointsman import cli
from pointsman.commands import evaluate, replay
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import DAY_MS, NOON, row
from tests.policy.test_policy import ENCODER, arm, pure_code

ARMS = ("a", "b", "c")
CONFIG = "".join(map(arm, ARMS))
POLICY = "[policies.default]\nobjective = { quality = 1.0 }\n"
GOOD = {"a": 0.9, "b": 0.5, "c": 0.1}
N = 600


def rows(n: int = N, **changes: Any) -> list[LoggedDecision]:
    """Drawn uniformly, with binary quality by arm, a minute apart."""
    rng = np.random.default_rng(0)
    x = pure_code(1)[0]
    made = []
    for i in range(n):
        drawn = str(rng.choice(ARMS))
        outcome = Outcome(float(rng.random() < GOOD[drawn]), 500.0, 0.004, closed=True)
        settings = {
            "encoder": ENCODER.fingerprint,
            "arm": drawn,
            "pmf": np.full(3, 1 / 3),
            "propensity": 1 / 3,
            "x": x,
            "made_at_ms": NOON + 60_000 * i,
        }
        made.append(row(f"d{i:04}", outcome, **(settings | changes)))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and the configuration of its arms, in one folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_log(rows(), str(folder / "log"))
    (folder / "pointsman.toml").write_text(CONFIG + POLICY)
    return folder


def run(folder: Path, *arguments: object, command: Any = evaluate.command) -> Result:
    given = [str(folder / "log"), "--config", str(folder / "pointsman.toml")]
    return CliRunner().invoke(command, [*given, *map(str, arguments)])


def figures(folder: Path, *arguments: object, command: Any = evaluate.command) -> Any:
    done = run(folder, *arguments, "--json", command=command)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def faulty(
    folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object, name: str = "evaluate"
) -> str:
    """The one line that the command line prints of a fault, at exit code 1."""
    given = [name, str(folder / "log"), "--config", str(folder / "pointsman.toml")]
    before, sys.argv = sys.argv, ["pointsman", *given, *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
    told = capsys.readouterr()
    assert stopped.value.code == 1
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    return told.err


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
    told = figures(whole, "--objective", "speed")["logged"]
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


def test_a_sweep_says_what_of_the_lead_is_selection(whole: Path, tmp_path: Path):
    """Candidates of tables and of a grid; and that nothing of it is a verdict."""
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[candidates.even]\nmodel = "uniform"\n[candidates.b]\nmodel = "fixed"\narm = "b"\n'
        '[grid]\nscale = [0.2, 0.5]\nmodel = ["linear", "nearest"]\n'
    )
    told = figures(whole, "--sweep", file, "--weights", "1,0,0")
    swept = told["sweep"]
    assert list(swept["candidates"]) == [
        "even",
        "b",
        "scale=0.2 model=linear",
        "model=nearest",
        "scale=0.5 model=linear",
    ]
    assert "even" not in told["targets"]
    best = swept["best"]
    assert best["selection"] == pytest.approx(
        best["naive_lead"]["value"] - best["honest_lead"]["value"]
    )
    assert best["naive_lead"] == swept["candidates"][best["candidate"]]["lead"]
    assert best["naive_lead"]["low"] > 0.1
    assert list(best["honest_lead"]) == ["value"]
    assert "only the gate decides" in swept["note"]
    text = run(whole, "--sweep", file, "--weights", "1,0,0").output
    assert "is selection" in text
    assert "only the gate decides" in text


def test_a_candidate_that_cannot_be_replayed_does_not_end_the_sweep(whole: Path, tmp_path: Path):
    """It is named with the reason, beside those that can."""
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[candidates.own]\nmodel = "caller"\n[candidates.rules]\nmodel = "rules"\n'
        '[candidates.b]\nmodel = "fixed"\narm = "b"\n'
    )
    swept = figures(whole, "--sweep", file)["sweep"]
    refused = swept["not_evaluable"]
    assert (list(swept["candidates"]), list(refused)) == (["b"], ["own", "rules"])
    assert "a policy of model 'rules' decides from more" in refused["rules"]
    lines = run(whole, "--sweep", file).output.splitlines()
    assert {f"{name}: {why}" for name, why in refused.items()} <= set(lines)
    assert any(line.startswith("best: b, which seems to lead by ") for line in lines)


def test_what_is_biased_is_marked_in_a_sweep(whole: Path, tmp_path: Path):
    """As it is of a target: values, leads and the winner's."""
    file = tmp_path / "sweep.toml"
    file.write_text("[grid]\nscale = [0.2, 0.5]\n")
    swept = figures(whole, "--sweep", file, "--estimator", "dm")["sweep"]
    marked = [*swept["candidates"].values(), {"best": swept["best"]["naive_lead"]}]
    found = {one["warning"] for each in marked for one in each.values()}
    assert found == {estimators.BIASED["dm"]}


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
    ({"propensity": np.nan}, "propensities must be given: rows 0, 1, 2"),
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[candidates.x]\nscal = 1.0", ":2: candidates.x.scal: unknown key, did you mean 'scale'?"),
        ("[candidates.x]\nscale = -1.0", ":2: candidates.x.scale: must be > 0, got -1.0"),
        ("[grid]\nscale = [0.2, 0]", ":2: grid.scale: must be > 0, got 0"),
        ("[grid]\nscale = 0.2", ":2: grid.scale: must be a list of values"),
        ("[grids]\nscale = [0.2]", ":1: grids: unknown key, did you mean 'grid'?"),
        ('[candidates.x]\nmodel = "fixed"\narm = "z"', ":3: candidates.x.arm: there is no arm 'z'"),
        ("", "there must be at least one [candidates.NAME] table"),
    ],
)
def test_a_faulty_sweep_names_the_key(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
):
    """And the line where it stands."""
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    assert says in faulty(whole, capsys, "--sweep", file)


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
        ("--weights", "1,0,0", "--objective", "cost"),
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


def test_a_log_is_streamed_to_the_same_figures(whole: Path):
    """Estimates, intervals and support, by each estimator."""
    asked = ("--target", "logged", "--target", "uniform", "--target", "a", "--json")
    found = json.loads(run(whole, *asked).stdout)["targets"]
    done = run(whole, "--stream", *asked)
    assert done.exit_code == 0, done.output
    streamed = json.loads(done.stdout)
    assert (streamed["rows"], list(streamed["targets"])) == (N, ["logged", "uniform", "a"])
    for name, one in streamed["targets"].items():
        assert one["effective_rows"] == pytest.approx(found[name]["effective_sample_size"])
        for estimator, value in one["reward"].items():
            of_all = found[name]["reward"][estimator]
            for figure in ("value", "low", "high"):
                assert value[figure] == pytest.approx(of_all[figure], abs=1e-9)
    text = run(whole, "--stream", "--target", "a").stdout
    assert text.startswith(f"{whole / 'log'}: {N} rows in 1 parts\ntarget ")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--target", "config"), 2, "needs the log in memory"),
        (("--sweep", "any.toml"), 2, "--stream has no --sweep"),
        (("--target", "no such arm"), 1, "is in no action set of the log"),
        (("--from", "2030-01-01"), 1, "no row to evaluate"),
    ],
)
def test_what_cannot_be_streamed_is_said(
    whole: Path, arguments: tuple[str, ...], code: int, told: str
):
    """In one line."""
    done = run(whole, "--stream", *arguments)
    assert (done.exit_code, told in done.output + str(done.exception)) == (code, True)


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
