"""What can be known of Pythons that aren't here: what the locks install there."""

from __future__ import annotations

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = {"requirements.lock": ["build"], "requirements-dev.lock": ["build", "dev"]}
NEWEST_PATCH = {"3.11": "3.11.14", "3.12": "3.12.12", "3.13": "3.13.9"}


def applies(requirement: Requirement, version: str) -> bool:
    """Whether it is for this machine with another Python."""
    there = {"python_version": version, "python_full_version": NEWEST_PATCH[version]}
    return requirement.marker is None or requirement.marker.evaluate(
        {**default_environment(), **there}
    )


def installed(lock: str, version: str) -> dict[str, str]:
    """The version of each package that a lock installs with a Python."""
    lines = (ROOT / lock).read_text().splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    found = [
        (canonicalize_name(pin.name), str(pin.specifier).removeprefix("=="))
        for pin in pins
        if applies(pin, version)
    ]
    assert len(dict(found)) == len(found), "a package is pinned twice"
    return dict(found)


@pytest.mark.parametrize("version", NEWEST_PATCH)
@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_has_what_each_python_needs(lock: str, version: str):
    """Each requirement of pyproject.toml, once, in a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = chain(project["dependencies"], *(extras[extra] for extra in EXTRAS[lock]))
    found = installed(lock, version)
    for requirement in map(Requirement, wanted):
        if applies(requirement, version):
            assert found[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("lock", EXTRAS)
def test_vowpal_wabbit_alone_is_missing_on_the_newest_python(lock: str):
    """It has no build for Python 3.13; nothing else that the suite needs depends on the version."""
    old, new = (set(installed(lock, version)) for version in ("3.12", "3.13"))
    assert old - new == {"vowpal-wabbit-next"}
    assert old == set(installed(lock, "3.11"))
