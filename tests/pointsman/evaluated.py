"""A log and its configuration in a folder, and the commands that read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from offline_eval.log.writing import write_log
from pointsman import cli
from pointsman.commands import evaluate
from policy.records import LoggedDecision, Outcome
from tests.offline_eval.rows import NOON, row
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


def written(folder: Path) -> Path:
    """The folder, with a log and the configuration of its arms in it."""
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
