"""The benchmark of long logs makes one that can be estimated from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log


def test_its_log_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of several days and files; read in parts it says what it says at once."""
    monkeypatch.setattr(scale, "ROUNDS_A_DAY", 1_500)
    monkeypatch.setattr(scale, "ROWS_PER_FILE", 500)
    monkeypatch.setattr(scale, "ROWS", 400)
    scale.make(tmp_path, 3_100)
    assert len(list(tmp_path.rglob("*.parquet"))) == 7
    data = read_log(str(tmp_path))
    check_log(data)
    assert len(data) == 3_100
    streamed = scale.streamed(str(tmp_path))
    assert scale.apart(streamed, scale.in_memory(str(tmp_path))) < 1e-9
    assert all(0.0 < value < 1.0 and se < 0.1 for value, se in streamed.values())
