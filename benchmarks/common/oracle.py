"""Open Bandit Pipeline's estimators, to compare ours with.

obp 0.5.7 pins Python below 3.11 and libraries of 2022, so it is no extra of ours. Its estimators
run on today's all the same:

    pip install --no-deps --ignore-requires-python obp==0.5.7
    pip install scikit-learn pandas

Importing all of obp needs torch, seaborn and more, of which its estimators use nothing but two
names in annotations: only they are imported here, and where there is no torch, by a stand-in.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@cache
def estimators() -> tuple[Any, Any]:
    """The modules obp.ope.estimators and obp.ope.estimators_tuning.

    Raises
    ------
    ImportError
        Where they can't be imported; it says what is missing.
    """
    spec = find_spec("obp")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("Open Bandit Pipeline isn't installed: see benchmarks/common/oracle.py")
    root = next(iter(spec.submodule_search_locations))
    before = set(sys.modules)
    sys.modules["obp"] = _package("obp", root)
    sys.modules["obp.ope"] = _package("obp.ope", f"{root}/ope")
    if stand_in := find_spec("torch") is None:
        sys.modules["torch"] = _torch()
    try:
        return import_module("obp.ope.estimators"), import_module("obp.ope.estimators_tuning")
    except ImportError:
        for name in {n for n in sys.modules if n.split(".")[0] == "obp"} - before:
            del sys.modules[name]
        raise
    finally:
        if stand_in:  # other libraries ask whether there is one
            del sys.modules["torch"]


def _package(name: str, folder: str) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = [folder]
    return package


def _torch() -> ModuleType:
    torch = ModuleType("torch")
    tensor = type("Tensor", (), {})
    torch.__dict__.update(Tensor=tensor, tensor=tensor)
    return torch
