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
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def estimators() -> tuple[Any, Any]:
    """The modules obp.ope.estimators and obp.ope.estimators_tuning.

    Raises
    ------
    ImportError
        Where they can't be imported; it says what is missing.
    """
    spec = find_spec("obp")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("Open Bandit Pipeline isn't installed: see benchmarks/oracle.py")
    root = next(iter(spec.submodule_search_locations))
    for name, folder in (("obp", root), ("obp.ope", f"{root}/ope")):
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [folder]
            sys.modules[name] = package
    if find_spec("torch") is None:
        torch = ModuleType("torch")
        torch.__dict__.update(Tensor=object, tensor=object)
        sys.modules["torch"] = torch
    return import_module("obp.ope.estimators"), import_module("obp.ope.estimators_tuning")
