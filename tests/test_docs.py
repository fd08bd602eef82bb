"""What the documents say is what the code does."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from pointsman.cli import COMMANDS
from serving.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")
TREE = (ROOT / "docs" / "tree.md").read_text("utf-8")


def test_every_setting_is_documented_with_its_default():
    """And the table names none that doesn't exist."""
    rows = dict(
        re.findall(r"^\| `POINTSMAN_(\w+)` \| `?([^`|]+?)`? \|", CONFIGURATION, re.MULTILINE)
    )
    defaults = {
        name.upper(): "unset" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert rows == defaults


def test_the_tree_names_every_module():
    """No file that a newcomer can't find, none that has gone."""
    named = set(re.findall(r"\b\w+\.py\b", TREE))
    packages = ("features", "policy", "serving", "offline_eval", "pointsman", "pointsman_client")
    there = {
        p.name
        for package in packages
        for p in (ROOT / package).rglob("*.py")
        if p.parent.name != "commands"
    }
    assert named == there - {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_helps(name: str):
    """The list that --help shows is written by hand, for speed."""
    command = import_module(f"pointsman.commands.{name.replace('-', '_')}").command
    assert command.help


def test_the_benchmarks_that_the_readme_names_exist():
    """`python -m benchmarks.NAME`."""
    line = next(line for line in README.splitlines() if line.startswith("`CONTRIBUTING.md`"))
    for name in re.findall(r"`(\w+)`", line.split("Benchmarks:")[1]):
        places = (f"{name}.py", f"{name}/__main__.py")
        assert any((ROOT / "benchmarks" / place).exists() for place in places), name


def test_the_openapi_document_describes_every_body():
    """Bodies are parsed by our own code; the document must still know them."""
    app = import_module("serving.app")
    document = app.create_app(Settings(redis_url="redis://127.0.0.1:1")).openapi()
    schemas = document["components"]["schemas"]
    assert {body.__name__ for body in app.BODIES} <= schemas.keys()
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]


def test_the_readme_is_a_door():
    """One sitting's reading; the rest is in docs/, and it names each document there."""
    assert len(README.splitlines()) <= 150
    for path in (ROOT / "docs").rglob("*.md"):
        assert f"({path.relative_to(ROOT)})" in README
