"""`pointsman import-log` and `export-log`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from pointsman.commands import export_log, import_log
from pointsman.trying import outcomes as folders
from policy.config.toml import to_toml
from policy.records import Outcome
from tests.offline_eval.rows import row
from tests.offline_eval.test_dsjson import line
from tests.offline_eval.test_obd import HEADER, LINES
from tests.pointsman.sets import tiny
from tests.servers import main_of

BAD = "[CHECKPOINT INFO LINE]"


def run_import(*arguments: object) -> Result:
    return CliRunner().invoke(import_log.command, list(map(str, arguments)))


def run_export(*arguments: object) -> Result:
    return CliRunner().invoke(export_log.command, list(map(str, arguments)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Three rows, one of them twice, and a line that is none."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text("\n".join((line(), BAD, line(EventId="e2", _skipLearn=True))) + "\n")
    zero = {"_label_cost": 0.0, "_original_label_cost": 0.0}
    two.write_text(line() + "\n" + line(EventId="e3", **zero) + "\n")
    return one, two


def test_import_says_what_it_made_and_what_it_skipped(files: tuple[Path, Path], tmp_path: Path):
    """By file and line, with the reason."""
    done = run_import(*files, "--to", tmp_path / "log", "--policy", "coffee")
    assert done.exit_code == 0, done.output
    first, second, *skipped = done.output.splitlines()
    assert first == f"3 rows in {tmp_path / 'log'}, 1 of them never used"
    assert second == "3 arms, mean reward 0.5000"
    assert skipped[0] == "2 lines skipped:"
    assert skipped[1].startswith(f"  {files[0]}:2: not JSON")
    assert skipped[2] == f"  {files[1]}:1: EventId 'e1' has been there before"
    made = read_log(str(tmp_path / "log"), policy="coffee")
    assert made.decision_ids == ("e1", "e2", "e3")
    check_log(made)


def test_import_again_replaces(files: tuple[Path, Path], tmp_path: Path):
    """A second run is no second log."""
    for _ in range(2):
        run_import(*files, "--to", tmp_path / "log")
    assert len(read_log(str(tmp_path / "log"))) == 3


def test_json_is_one_object_on_stdout(files: tuple[Path, Path], tmp_path: Path):
    """With the figures that the text has."""
    figures = json.loads(run_import(*files, "--to", tmp_path / "log", "--json").stdout)
    lines = figures.pop("skipped_lines")
    assert figures == {
        "rows": 3,
        "unused": 1,
        "arms": 3,
        "mean_reward": 0.5,
        "propensities": "logged",
        "skipped": 2,
    }
    assert [(one["file"], one["line"]) for one in lines] == [(str(files[0]), 2), (str(files[1]), 1)]
    file = tmp_path / "out.dsjson"
    exported = json.loads(run_export(tmp_path / "log", "--to", file, "--json").stdout)
    assert exported == {"rows": 3, "file": str(file)}


def test_options_reach_the_reader(tmp_path: Path):
    """The pointer to an id, and the range of rewards."""
    file = tmp_path / "log.json"
    file.write_text(line(_label_cost=-5, _original_label_cost=-5))
    options = ("--arm-id", "/i/id", "--reward-range", 0, 10)
    figures = json.loads(run_import(file, "--to", tmp_path / "log", *options, "--json").stdout)
    assert figures["mean_reward"] == 0.5
    assert read_log(str(tmp_path / "log")).ids == ("cold-1", "latte-1", "mocha-1")


def test_nothing_to_import_is_an_error(tmp_path: Path):
    """Exit code 1, after the reasons."""
    file = tmp_path / "log.json"
    file.write_text(BAD)
    done = run_import(file, "--to", tmp_path / "log")
    assert done.exit_code == 1
    assert "not JSON" in done.output
    assert "no line holds a decision" in done.output


@pytest.mark.parametrize(
    "options", [("--reward-range", 1, 0), ("--arm-id", "sku"), ("--format", "x")]
)
def test_a_wrong_option_is_a_usage_error(tmp_path: Path, options: tuple[object, ...]):
    """Exit code 2, before a file is opened."""
    assert run_import(tmp_path / "missing", "--to", tmp_path / "log", *options).exit_code == 2


def test_export_writes_lines_to_stdout_or_a_file(files: tuple[Path, Path], tmp_path: Path):
    """The same ones; --json needs the file, for stdout can't take both."""
    run_import(*files, "--to", tmp_path / "log")
    shown = run_export(tmp_path / "log")
    file = tmp_path / "out.dsjson"
    assert run_export(tmp_path / "log", "--to", file).exit_code == 0
    assert shown.stdout == file.read_text()
    assert [json.loads(text)["EventId"] for text in shown.stdout.splitlines()] == ["e1", "e2", "e3"]
    assert run_export(tmp_path / "log", "--json").exit_code == 2


def test_export_with_a_configuration_scores_the_whole_objective(tmp_path: Path):
    """0.7 * 0.8 + 0.15 * (1 - 0.05) + 0.15 * (1 - 0.2): the references are the file's."""
    write_log([row(outcome=Outcome(0.8, 500.0, 0.004))], str(tmp_path / "log"))
    config = tmp_path / "pointsman.toml"
    config.write_text(to_toml(folders.config(tiny())))  # 10,000 ms and 0.02 USD
    done = run_export(tmp_path / "log", "--config", config)
    assert json.loads(done.stdout)["_label_cost"] == pytest.approx(-0.8225)
    assert run_export(tmp_path / "log", "--config", tmp_path / "missing").exit_code == 1


def test_a_missing_file_or_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """And exit code 1."""
    missing = str(tmp_path / "missing")
    for arguments in (["import-log", missing, "--to", missing], ["export-log", missing]):
        assert main_of(*arguments) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert missing in told


def test_import_of_the_open_bandit_dataset(tmp_path: Path):
    """One row per shown item; the file's name is the version."""
    file = tmp_path / "men.csv"
    file.write_text("\n".join((HEADER, *LINES)) + "\n")
    options = ("--format", "obd", "--policy", "zozo", "--json")
    figures = json.loads(run_import(file, "--to", tmp_path / "log", *options).stdout)
    assert (figures["rows"], figures["arms"], figures["skipped"]) == (3, 3, 0)
    assert figures["mean_reward"] == pytest.approx(1 / 3)
    assert read_log(str(tmp_path / "log"), policy="zozo").versions == ("men",) * 3
