"""Nothing that is stored, sent or configured is ever run: no pickle or its like, no eval."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import ROOT, modules

MODULES = {  # that execute what they read, or load code by what it says
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("yaml", "ruamel", "torch", "jsonpickle", "code", "codeop", "runpy", "imp", "xmlrpc"),
}
CALLS = {  # by the last name, wherever it comes from
    *("eval", "exec", "compile", "execfile", "__import__", "literal_eval"),
    *("read_pickle", "to_pickle", "pyfunc", "load_model", "save_model", "fromfile", "memmap"),
    *("register_extension_type", "PyExtensionType", "UnknownExtensionType"),
    *("system", "popen", "spawnl", "spawnv", "execv", "execve", "execvp"),
}
STORE = ROOT / "serving" / "store"
ALLOWED = {  # a regular expression; a column of a table
    ("re", "compile"),
    ("pc", "compile"),
}
OF_NUMPY = {"load", "loads", "save", "savez", "savez_compressed"}  # of np: the doors to pickle
WITH_CONSTANTS = {  # import_module: of names that are ours, never of data
    "pointsman/cli.py": "pointsman.commands.{}",
    "pointsman/pricing/genai.py": "genai_prices.data",
    "pointsman_client/__init__.py": "pointsman_client.{}",
}


def forbidden(path: Path) -> Iterator[str]:
    """What of a module could run what it reads."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield str(node.module)
            yield from (a.name for a in node.names if a.name in CALLS - {"compile"})
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if name == "eval" and path.parent == STORE:  # Redis runs a script of ours
                continue
            if name in CALLS and (owner, name) not in ALLOWED:
                yield f"{owner}.{name}"
            if owner in ("np", "numpy") and name in OF_NUMPY:
                yield f"{owner}.{name}"
        elif isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            yield f"{node.arg}="


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_could_run_what_it_reads(path: Path):
    """Whether it comes from Redis, MLflow, a file or a request; nor does one start a shell."""
    assert not list(forbidden(path))


def test_code_is_loaded_by_names_of_ours_alone():
    """Where a module is imported by a name that is put together, its beginning is written out."""
    found = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _last(node.func) == "import_module":
                found[str(path.relative_to(ROOT))] = _written(node.args[0])
    assert found == WITH_CONSTANTS


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load('x')",
        "eval('1')",
        "f(allow_pickle=True)",
        "import mlflow\nmlflow.pyfunc.load_model('x')",
        "import os\nos.system('x')",
        "subprocess.run('x', shell=True)",
        "import yaml",
        "pa.register_extension_type(x)",
    ],
)
def test_what_could_is_found(source: str, tmp_path: Path):
    """So the tests above can fail."""
    (tmp_path / "a.py").write_text(source)
    assert list(forbidden(tmp_path / "a.py"))


def _last(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _written(argument: ast.expr) -> str:
    """A name as it is written out, {} for what isn't."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else v for v in argument.values]
        known = [
            "pointsman_client" if isinstance(p, ast.FormattedValue) and _is_own(p) else p
            for p in parts
        ]
        return "".join(p if isinstance(p, str) else "{}" for p in known)
    return "{}"


def _is_own(part: ast.FormattedValue) -> bool:
    return isinstance(part.value, ast.Name) and part.value.id == "__name__"
