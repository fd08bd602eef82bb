"""`mlflow run mlflow` calls commands that exist, and a verdict is no failure of the run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from offline_eval.registry import Registry
from pointsman.cli import COMMANDS
from tests.pointsman.test_train import battery
from tests.servers import CONFIG, running_up

ROOT = Path(__file__).parents[1]
ENTRY_POINTS = yaml.safe_load((ROOT / "mlflow" / "MLproject").read_text("utf-8"))["entry_points"]


def calls(entry_point: str) -> list[tuple[str, list[str]]]:
    """The commands of ours that an entry point calls, with all arguments that it may give."""
    given = dict.fromkeys(ENTRY_POINTS[entry_point]["parameters"], "given")
    script = ENTRY_POINTS[entry_point]["command"].format(**given)
    script = re.sub(r"\$\{\w+:\+(.*?)\}", r"\1", script)  # as if the parameter were not empty
    found = re.findall(r"\bpointsman ([\w-]+)([^|\n]*?)(?: \|\| \{.*| \|)?$", script, re.MULTILINE)
    return [(name, shlex.split(arguments)) for name, arguments in found]


def test_the_entry_points_are_these():
    """Train and gate, and each alone."""
    assert {name: [call for call, _ in calls(name)] for name in ENTRY_POINTS} == {
        "main": ["train", "gate"],
        "train": ["train"],
        "gate": ["gate"],
    }


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_each_command_takes_the_options_it_is_given(entry_point: str):
    """Options and arguments of the command line are those of the commands."""
    for name, arguments in calls(entry_point):
        assert name in COMMANDS
        command = import_module(f"pointsman.commands.{name}").command
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        takes = [p for p in command.params if isinstance(p, click.Argument)]
        assert {argument for argument in arguments if argument.startswith("--")} <= options
        values = {
            p.opts[0] for p in command.params if isinstance(p, click.Option) and not p.is_flag
        }
        plain = [
            argument
            for before, argument in zip(["", *arguments], arguments, strict=False)
            if not argument.startswith("--") and before not in values
        ]
        assert len(plain) <= len(takes)


@pytest.mark.parametrize(("said", "ends"), [(0, 0), (3, 0), (4, 0), (1, 1), (2, 1), (137, 1)])
@pytest.mark.parametrize("entry_point", ["main", "gate"])
def test_only_errors_fail_the_run(tmp_path: Path, entry_point: str, said: int, ends: int):
    """To fail the gate is a finding. Commands stand in here, that answer as ours do."""
    project = tmp_path / "mlflow"
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    project.mkdir()
    ours = commands / "pointsman"
    ours.write_text(f"""#!/bin/sh
if [ "$1" = train ]; then echo '{{"version": "7"}}'; exit; fi
echo "$@" > called
exit {said}
""")
    ours.chmod(0o755)
    given = dict.fromkeys(ENTRY_POINTS[entry_point]["parameters"], "''") | {"policy": "mine"}
    script = ENTRY_POINTS[entry_point]["command"].format(**given)
    done = subprocess.run(["bash", "-c", script], cwd=project, check=False)
    assert done.returncode == ends
    called = (tmp_path / "called").read_text().split()
    assert called == (["gate", "mine", "7"] if entry_point == "main" else ["gate", "mine"])


@pytest.mark.slow
def test_mlflow_trains_a_version(tmp_path: Path, mlflow_uri: str):
    """For real, beside a running service."""
    with running_up(tmp_path, CONFIG):
        subprocess.run(
            [
                str(Path(sys.executable).parent / "mlflow"),
                *("run", "mlflow", "--env-manager", "local", "-e", "train"),
                *("-P", f"path={battery(tmp_path / 'set')}"),
            ],
            env={
                **os.environ,
                "POINTSMAN_DATA": str(tmp_path / "data"),
                "POINTSMAN_CONFIG": str(tmp_path / "pointsman.toml"),
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            cwd=ROOT,
            check=True,
        )
    assert [v.version for v in Registry(mlflow_uri).versions("default")] == ["2"]
