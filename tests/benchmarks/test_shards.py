"""The benchmark of the store's scripts drives real servers; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.shards import __main__ as shards


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one", "cluster", "waiting"])
def test_each_decision_has_its_cost(tmp_path: Path, kind: str):
    """On each server that is written to, and on the way to its replica."""
    with shards.servers(tmp_path, kind) as (url, nodes, replicas):
        told = shards.measure(tmp_path, url, nodes, ["default", "b"], 200, 16, replicas)
    assert told["memory_bytes"] > 500
    assert told["file_bytes"] > 500
    assert (told["replicated_bytes"] > 500) == (kind == "waiting")
