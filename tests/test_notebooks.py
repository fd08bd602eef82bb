"""The notebooks run as they are committed, and find what is so."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MOST_CODE_CELLS = 12
CELL_S = 120


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / name, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_without_outputs(name: str):
    """They would be stale with the next change of the code, and hide what a change does."""
    notebook = read(name)
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code(notebook))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_defines_nothing(name: str):
    """What is worth a function is worth a module, where it is tested."""
    defines = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    cells = code(read(name))
    assert len(cells) <= MOST_CODE_CELLS
    for cell in cells:
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defines)]


@pytest.fixture
def run(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Executes a notebook and returns what Python expressions are worth after its last cell."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def executed(name: str, pictures: int, **asked: str) -> Any:
        notebook = read(name)
        values = ", ".join(f"{key!r}: {expression}" for key, expression in asked.items())
        notebook.cells.append(new_code_cell(f"import json\nprint(json.dumps({{{values}}}))"))
        NotebookClient(
            notebook,
            timeout=CELL_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
        outputs = [output for cell in code(notebook) for output in cell.outputs]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
        assert not list(tmp_path.glob("pointsman-trial-*"))
        return json.loads(notebook.cells[-1].outputs[-1].text)

    return executed


def test_replaying_a_log(run: Any):
    """The log's own policy is valued at the log's mean, its draws follow its probabilities, and no
    reward but those that were lost is missing."""
    told = run(
        "1_replay_a_log.ipynb",
        pictures=5,
        rows="len(data)",
        mean="float(np.nanmean(reward))",
        own='estimates["the log\'s own: snips"].value',
        arrived="float(arrived.mean())",
        log_e="log_e",
        earned="result.mean_reward",
        uniform="estimates['uniform: dr'].value",
        uniform_se="estimates['uniform: dr'].se",
        truth="float(result.in_hindsight[0].mean())",
        replayed="replayed.estimate.value",
    )
    assert told["rows"] == 1_200
    assert told["own"] == pytest.approx(told["mean"])
    assert told["mean"] == pytest.approx(told["earned"], abs=0.01)
    assert told["arrived"] == pytest.approx(0.95, abs=0.026)  # four standard errors
    assert told["log_e"] < 12.0
    assert told["uniform"] == pytest.approx(told["truth"], abs=4 * told["uniform_se"])
    assert 0.5 < told["replayed"] < 0.9


@pytest.mark.slow
def test_comparing_two_policies(run: Any):
    """The dearest model wins where quality alone counts, and loses where cost comes first."""
    told = run(
        "2_compare_two_policies.ipynb",
        pictures=4,
        rows="len(data)",
        mixed="float((data.pmf - 0.8 * policies['champion'] - 0.2 * policies['challenger']).max())",
        differences="{name: (one.low, one.high) for name, one in differences.items()}",
        tasks="sorted(set(tasks))",
    )
    assert told["rows"] == 1_200
    assert told["mixed"] == pytest.approx(0.0, abs=1e-6)
    assert told["differences"]["quality alone"][0] > 0
    assert told["differences"]["cost first"][1] < 0
    assert told["tasks"] == ["code", "creative", "math", "qa", "summarization", "translation"]


@pytest.mark.slow
def test_reading_a_gate_report_and_promoting(run: Any):
    """Undecided after few rounds, then a pass: it is promoted, and serves the next query."""
    told = run(
        "3_read_a_gate_report_and_promote.ipynb",
        pictures=1,
        first="early",
        second="late",
        peak="float(trail.better.max())",
        needed="trail.needed",
        version="decision.version",
        verdict="verdict.verdict",
        estimate="verdict.figures['estimate']",
    )
    assert "verdict: undecided" in told["first"]
    assert "verdict: pass" in told["second"]
    assert told["peak"] >= told["needed"]
    assert told["version"] == "2"
    assert told["verdict"] == "pass"
    assert told["estimate"] > 0
