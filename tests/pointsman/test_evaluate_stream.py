"""`pointsman evaluate --stream`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pointsman.evaluated import (
    N,
    run,
    written,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and the configuration of its arms, in one folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    return written(folder)


def test_a_log_is_streamed_to_the_same_figures(whole: Path):
    """Estimates, intervals and support, by each estimator."""
    asked = ("--target", "logged", "--target", "uniform", "--target", "a", "--json")
    found = json.loads(run(whole, *asked).stdout)["targets"]
    done = run(whole, "--stream", *asked)
    assert done.exit_code == 0, done.output
    streamed = json.loads(done.stdout)
    assert (streamed["rows"], list(streamed["targets"])) == (N, ["logged", "uniform", "a"])
    for name, one in streamed["targets"].items():
        assert one["effective_rows"] == pytest.approx(found[name]["effective_sample_size"])
        for estimator, value in one["reward"].items():
            of_all = found[name]["reward"][estimator]
            for figure in ("value", "low", "high"):
                assert value[figure] == pytest.approx(of_all[figure], abs=1e-9)
    text = run(whole, "--stream", "--target", "a").stdout
    assert text.startswith(f"{whole / 'log'}: {N} rows in 1 parts\ntarget ")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--target", "config"), 2, "needs the log in memory"),
        (("--sweep", "any.toml"), 2, "--stream has no --sweep"),
        (("--target", "no such arm"), 1, "is in no action set of the log"),
        (("--from", "2030-01-01"), 1, "no row to evaluate"),
    ],
)
def test_what_cannot_be_streamed_is_said(
    whole: Path, arguments: tuple[str, ...], code: int, told: str
):
    """In one line."""
    done = run(whole, "--stream", *arguments)
    assert (done.exit_code, told in done.output + str(done.exception)) == (code, True)
