"""`pointsman evaluate --sweep`."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline_eval.estimating import estimators
from tests.pointsman.evaluated import (
    faulty,
    figures,
    run,
    written,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and the configuration of its arms, in one folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    return written(folder)


def test_a_sweep_says_what_of_the_lead_is_selection(whole: Path, tmp_path: Path):
    """Candidates of tables and of a grid; and that nothing of it is a verdict."""
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[candidates.even]\nmodel = "uniform"\n[candidates.b]\nmodel = "fixed"\narm = "b"\n'
        '[grid]\nscale = [0.2, 0.5]\nmodel = ["linear", "nearest"]\n'
    )
    told = figures(whole, "--sweep", file, "--weights", "1,0,0")
    swept = told["sweep"]
    assert list(swept["candidates"]) == [
        "even",
        "b",
        "scale=0.2 model=linear",
        "model=nearest",
        "scale=0.5 model=linear",
    ]
    assert "even" not in told["targets"]
    best = swept["best"]
    assert best["selection"] == pytest.approx(
        best["naive_lead"]["value"] - best["honest_lead"]["value"]
    )
    assert best["naive_lead"] == swept["candidates"][best["candidate"]]["lead"]
    assert best["naive_lead"]["low"] > 0.1
    assert list(best["honest_lead"]) == ["value"]
    assert "only the gate decides" in swept["note"]
    text = run(whole, "--sweep", file, "--weights", "1,0,0").output
    assert "is selection" in text
    assert "only the gate decides" in text


def test_a_candidate_that_cannot_be_replayed_does_not_end_the_sweep(whole: Path, tmp_path: Path):
    """It is named with the reason, beside those that can."""
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[candidates.own]\nmodel = "caller"\n[candidates.rules]\nmodel = "rules"\n'
        '[candidates.b]\nmodel = "fixed"\narm = "b"\n'
    )
    swept = figures(whole, "--sweep", file)["sweep"]
    refused = swept["not_evaluable"]
    assert (list(swept["candidates"]), list(refused)) == (["b"], ["own", "rules"])
    assert "a policy of model 'rules' decides from more" in refused["rules"]
    lines = run(whole, "--sweep", file).output.splitlines()
    assert {f"{name}: {why}" for name, why in refused.items()} <= set(lines)
    assert any(line.startswith("best: b, which seems to lead by ") for line in lines)


def test_what_is_biased_is_marked_in_a_sweep(whole: Path, tmp_path: Path):
    """As it is of a target: values, leads and the winner's."""
    file = tmp_path / "sweep.toml"
    file.write_text("[grid]\nscale = [0.2, 0.5]\n")
    swept = figures(whole, "--sweep", file, "--estimator", "dm")["sweep"]
    marked = [*swept["candidates"].values(), {"best": swept["best"]["naive_lead"]}]
    found = {one["warning"] for each in marked for one in each.values()}
    assert found == {estimators.BIASED["dm"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[candidates.x]\nscal = 1.0", ":2: candidates.x.scal: unknown key, did you mean 'scale'?"),
        ("[candidates.x]\nscale = -1.0", ":2: candidates.x.scale: must be > 0, got -1.0"),
        ("[grid]\nscale = [0.2, 0]", ":2: grid.scale: must be > 0, got 0"),
        ("[grid]\nscale = 0.2", ":2: grid.scale: must be a list of values"),
        ("[grids]\nscale = [0.2]", ":1: grids: unknown key, did you mean 'grid'?"),
        ('[candidates.x]\nmodel = "fixed"\narm = "z"', ":3: candidates.x.arm: there is no arm 'z'"),
        ("", "there must be at least one [candidates.NAME] table"),
    ],
)
def test_a_faulty_sweep_names_the_key(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
):
    """And the line where it stands."""
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    assert says in faulty(whole, capsys, "--sweep", file)
