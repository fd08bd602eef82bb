"""Logs of others, from a table to an estimate: what can be said with and without propensities."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from offline_eval.estimating import rounds
from offline_eval.log.reading import read_log, read_rows
from pointsman.commands import evaluate, import_log, replay
from pointsman.trying import outcomes as folders
from policy.config.toml import to_toml
from tests.pointsman.sets import tiny

N = 600
SHARE = {"sales": 0.8, "tech": 0.3}  # of arm "gpt" by team, drawn with a fair coin's independence
QUALITY = {
    ("sales", "gpt"): 0.5,
    ("sales", "llama"): 0.7,
    ("tech", "gpt"): 0.9,
    ("tech", "llama"): 0.2,
}
TEAMS = ("--column", "labels=team", "--column", "arm=model", "--column", "reward=score")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a folder without a pointsman.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTSMAN_CONFIG", raising=False)


def table() -> str:
    """N rows: model, score, team, and the propensity that each was drawn with."""
    rng = np.random.default_rng(7)
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(("model", "score", "team", "p"))
    for i in range(N):
        team = ("sales", "tech")[i % 2]
        arm = "gpt" if rng.random() < SHARE[team] else "llama"
        p = SHARE[team] if arm == "gpt" else 1 - SHARE[team]
        rows.writerow((arm, int(rng.random() < QUALITY[team, arm]), team, round(p, 6)))
    return out.getvalue()


def imported(*options: str, content: bytes | None = None) -> Result:
    given = table().encode() if content is None else content
    arguments = ["-", "--to", "log", "--format", "table", *TEAMS, *options]
    done = CliRunner().invoke(import_log.command, arguments, input=given)
    assert done.exit_code == 0, done.output
    return done


def evaluated(*options: str) -> dict[str, object]:
    done = CliRunner().invoke(evaluate.command, ["log", "--json", *options])
    assert done.exit_code == 0, done.output
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


def target(figures: dict[str, object], name: str) -> dict[str, object]:
    found: dict[str, object] = figures["targets"][name]  # type: ignore[index]
    return found


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lambda text: pa.compress(text, codec="zstd", asbytes=True)]
)
def test_a_table_from_standard_input_is_evaluated_without_a_configuration(
    pack: Callable[[bytes], bytes],
):
    """Packed or not, marked or not: IPS is Σ score / p over the rows with the arm, by hand."""
    imported("--column", "propensity=p", content=pack(b"\xef\xbb\xbf" + table().encode()))
    figures = evaluated("--target", "gpt", "--estimator", "ips")
    assert (figures["rows"], figures["propensities"]) == (N, "logged")
    rows = [row for row in csv.DictReader(io.StringIO(table())) if row["model"] == "gpt"]
    by_hand = sum(float(row["score"]) / float(row["p"]) for row in rows) / N
    told = target(figures, "gpt")["reward"]["ips"]  # type: ignore[index]
    assert told["value"] == pytest.approx(by_hand, rel=1e-5)
    assert told["warning"] is None


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        (("gpt", "other"), "arms: pointsman.toml lacks llama of the log's: its policies never"),
        (("gpt", "llama", "other"), None),
    ],
)
def test_a_file_that_lacks_some_of_the_logs_arms_is_told(arms: tuple[str, ...], told: str | None):
    """A policy that may not choose what the log tried looks worse, or better, for that alone."""
    imported("--column", "propensity=p")
    text = "".join(
        f'[[arms]]\nid = "{arm}"\nprovider = "p"\nmodel = "m"\nusd_per_mtok_in = 1\n'
        "usd_per_mtok_out = 1\n"
        for arm in arms
    )
    Path("pointsman.toml").write_text(text, "utf-8")
    done = CliRunner().invoke(evaluate.command, ["log", "--target", "config"])
    assert done.exit_code == 0, done.output
    assert ("arms:" in done.output) == (told is not None)
    assert (told or "") in done.output


def test_without_propensities_the_direct_method_answers():
    """It says so when the log is made and when it is read, and of everything else says why not."""
    assert "the direct method alone can value this log" in imported().output
    figures = evaluated("--target", "gpt", "--estimator", "dm", "--estimator", "ips")
    assert figures["propensities"] == "unknown"
    told = target(figures, "gpt")
    assert told["reward"]["dm"]["value"] == pytest.approx(0.7, abs=0.08)  # type: ignore[index]
    assert told["reward"]["dm"]["warning"]  # type: ignore[index]
    assert told["reward"]["ips"] == {  # type: ignore[index]
        "value": None, "low": None, "high": None, "warning": None, "why": rounds.UNKNOWN
    }  # fmt: skip
    assert told["effective_sample_size"] is told["unsupported"] is told["max_weight"] is None
    text = CliRunner().invoke(evaluate.command, ["log"])
    assert text.exit_code == 0, text.output
    assert "propensities: none: the direct method (dm) alone can value this log" in text.output
    assert "uniform" in text.output
    assert "logged" not in text.output


def test_what_needs_propensities_says_what_to_do():
    """In one line, with the way on."""
    imported()
    done = CliRunner().invoke(replay.command, ["log"])
    assert done.exit_code == 1
    assert "propensities must be given" in done.output
    assert "`import-log --propensities estimated` makes some" in done.output
    done = CliRunner().invoke(evaluate.command, ["log", "--target", "logged"])
    assert done.exit_code == 1
    assert "its own mean needs no estimate" in done.output


def test_estimated_propensities_are_marked_everywhere():
    """In the log's rows, in what evaluate and replay print, and in their JSON."""
    assert "estimated from the log, and marked so" in imported("--propensities", "estimated").output
    assert all(row.propensity_estimated for row in read_rows("log"))
    data = read_log("log")
    assert data.propensities == "estimated"
    truth = {p for share in SHARE.values() for p in (share, 1 - share)}
    assert all(min(abs(p - t) for t in truth) < 0.12 for p in data.propensity)
    figures = evaluated("--target", "gpt")
    assert figures["propensities"] == "estimated"
    for estimate in target(figures, "gpt")["reward"].values():  # type: ignore[attr-defined]
        assert rounds.ESTIMATED in estimate["warning"]
    assert rounds.ESTIMATED in target(figures, "gpt")["quality"]["warning"]  # type: ignore[index]
    for command in (evaluate.command, replay.command):
        done = CliRunner().invoke(command, ["log"])
        assert done.exit_code == 0, done.output
        assert "propensities: estimated from the log when it was imported" in done.output
        assert rounds.ESTIMATED in done.output
    told = json.loads(CliRunner().invoke(replay.command, ["log", "--json"]).stdout)
    assert told["propensities"] == "estimated"
    assert rounds.ESTIMATED in told["reward"]["warning"]
    streamed = CliRunner().invoke(evaluate.command, ["log", "--stream"])
    assert "propensities are estimated: it can't be valued part by part" in str(streamed.exception)


@pytest.mark.parametrize("file", [True, False])
def test_the_arms_are_the_logs_where_the_files_are_not(file: bool):
    """`replay` and the target `config` run over the log's arms, with a file of others or none."""
    imported("--column", "propensity=p")
    if file:
        Path("pointsman.toml").write_text(to_toml(folders.config(tiny())))
    told = CliRunner().invoke(replay.command, ["log", "--json", "--every", "16"])
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert figures["arms"] == ["gpt", "llama"]
    assert figures["arms_of_log"] is file
    assert figures["learned"] > 0
    assert target(evaluated("--target", "config"), "config")["reward"]["dr"]["value"] is not None  # type: ignore[index]
    text = CliRunner().invoke(evaluate.command, ["log", "--target", "config"]).output
    assert ("pointsman.toml has none of the log's, which are taken" in text) is file
    assert ("the built-in settings" in text) is not file


def test_a_file_that_is_named_must_be_there():
    """Not to have one is no fault; to name one that isn't there is."""
    imported("--column", "propensity=p")
    done = CliRunner().invoke(evaluate.command, ["log", "--config", "none.toml"])
    assert done.exit_code == 1
    assert "none.toml: can't be read" in str(done.exception)
    done = CliRunner().invoke(evaluate.command, ["log", "--target", "config:other"])
    assert "the built-in settings: there is no policy 'other' (known: default)" in done.output


def test_columns_come_from_a_toml_and_options_overrule_it():
    """A column that isn't there is named with those that are."""
    Path("columns.toml").write_text('arm = "model"\nreward = "stars"\nlabels = ["team"]\n')
    Path("log.csv").write_text(table())
    arguments = ["log.csv", "--to", "log", "--format", "table", "--columns", "columns.toml"]
    done = CliRunner().invoke(import_log.command, arguments)
    assert "log.csv: there is no column 'stars'; found model, score, team, p" in done.output
    done = CliRunner().invoke(import_log.command, [*arguments, "--column", "reward=score"])
    assert done.exit_code == 0, done.output
    assert len(read_log("log")) == N
    done = CliRunner().invoke(import_log.command, [*arguments, "--column", "amr=model"])
    assert done.exit_code == 2
    assert "unknown key 'amr'; did you mean 'arm'?" in done.output


def test_a_file_of_other_policies_is_not_asked(tmp_path: Path):
    """A log of others lies beside the file of a service: what scores it is built in."""
    imported("--column", "propensity=p")
    (tmp_path / "pointsman.toml").write_text(
        '[[arms]]\nid = "x"\nprovider = "p"\nmodel = "m"\n'
        "usd_per_mtok_in = 1.0\nusd_per_mtok_out = 1.0\n"
        "[policies.chat]\nobjective = { quality = 1.0 }\n"
    )
    done = CliRunner().invoke(evaluate.command, ["log", "--target", "logged"])
    assert done.exit_code == 0, done.output
