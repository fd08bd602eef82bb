"""What is installed from a wheel works without the checkout, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest

from tests.servers import ready, until

ROOT = Path(__file__).parents[1]
OURS = {"features", "policy", "serving", "offline_eval", "pointsman", "pointsman_client"}
CLIENT_MB = 30


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The service's wheel and the client's, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    for place in (ROOT, ROOT / "pointsman_client"):
        subprocess.run(build, cwd=place, check=True, capture_output=True)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def unpacked(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's wheel as pip would lay it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheels["pointsman"]) as wheel:
        wheel.extractall(folder)
    return folder


def run(
    command: list[str | Path], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In that folder, knowing nothing of this checkout."""
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=folder,
        env={**there, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_clients_wheel_holds_the_client_alone(wheels: dict[str, Path]):
    """Its package and the licence, of the service's version; it needs httpx and pydantic."""
    with zipfile.ZipFile(wheels["pointsman_client"]) as wheel:
        names = wheel.namelist()
        about = next(name for name in names if name.endswith("/METADATA"))
        metadata = message_from_bytes(wheel.read(about))
        licence = next(name for name in names if name.endswith("/LICENSE"))
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert {n.split("/")[0] for n in names} == {"pointsman_client", about.split("/")[0]}
    assert "pointsman_client/py.typed" in names
    needs = {re.split(r"\W", need)[0] for need in metadata.get_all("Requires-Dist", [])}
    assert needs == {"httpx", "pydantic"}
    assert metadata["Version"] == wheels["pointsman"].name.split("-")[1]


def test_both_wheels_hold_the_same_client(wheels: dict[str, Path]):
    """So neither breaks the other where somebody installs both."""
    found = []
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.startswith("pointsman_client/")]
            found.append({name: archive.read(name) for name in names})
    assert found[0] == found[1]


def test_the_command_says_how_to_start(unpacked: Path, tmp_path: Path):
    """In an empty folder `up` names `init` in one line; `init` writes the starter."""
    pointsman: list[str | Path] = [sys.executable, "-m", "pointsman"]
    site = {"PYTHONPATH": str(unpacked)}
    where = run([sys.executable, "-c", "import pointsman; print(pointsman)"], tmp_path, **site)
    assert str(unpacked) in where.stdout
    refused = run([*pointsman, "up"], tmp_path, **site)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "pointsman.toml: can't be read" in refused.stderr
    assert "`pointsman init`" in refused.stderr
    assert run([*pointsman, "init"], tmp_path, **site).returncode == 0
    assert (tmp_path / "pointsman.toml").read_bytes() == (ROOT / "pointsman.toml").read_bytes()


def installed(wheel: Path, folder: Path) -> Path:
    """A fresh environment with that wheel and what it needs; its scripts' folder."""
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q"]
    done = subprocess.run([*pip, wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.mark.slow
def test_the_client_is_light_on_disk(wheels: dict[str, Path], tmp_path: Path):
    """A fresh environment with it alone is under 30 MB, and nothing else of ours is in it."""
    python = installed(wheels["pointsman_client"], tmp_path / "env") / "python"
    [site] = (tmp_path / "env").glob("lib/python*/site-packages")
    used = sum(path.stat().st_blocks * 512 for path in site.rglob("*") if path.is_file())
    assert used < CLIENT_MB * 1e6
    code = f"""
import pointsman_client, sys
from importlib.util import find_spec
assert pointsman_client.Client and pointsman_client.AsyncClient
print(*[name for name in {sorted(OURS)} if find_spec(name)])
"""
    done = run([python, "-c", code], tmp_path)
    assert done.stdout.split() == ["pointsman_client"], done.stderr


@pytest.mark.slow
def test_the_service_runs_from_its_wheel(wheels: dict[str, Path], tmp_path: Path):
    """`init`, then `up` serves and learns, and `from pointsman import Client` asks it; `demo`."""
    scripts = installed(wheels["pointsman"], tmp_path / "env")
    place = tmp_path / "empty"
    place.mkdir()
    pointsman = scripts / "pointsman"
    assert run([pointsman, "up"], place).returncode == 1
    assert run([pointsman, "init"], place).returncode == 0
    with (place / "up.log").open("w") as log:
        service = subprocess.Popen([pointsman, "up", "--port", "0"], cwd=place, stderr=log)
    try:
        until(lambda: "http://" in (place / "up.log").read_text(), "the address is told", 60.0)
        found = re.search(r"http://[\d.:]+", (place / "up.log").read_text())
        assert found
        with httpx.Client(base_url=found[0]) as http:
            until(lambda: ready(http), "the service is ready", 60.0)
        code = f"from pointsman import Client; print(Client('{found[0]}').route('hello').arm)"
        asked = run([scripts / "python", "-c", code], place)
        assert asked.returncode == 0, asked.stderr
        assert f'"{asked.stdout.strip()}"' in (place / "pointsman.toml").read_text()
    finally:
        service.terminate()
        service.wait(30.0)
    demo = run([pointsman, "demo", "--rounds", "200"], place)
    assert demo.returncode == 0, demo.stderr
    assert (place / "data" / "demo" / "reward.png").exists()
