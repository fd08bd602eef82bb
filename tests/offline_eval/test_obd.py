"""The Open Bandit Dataset's layout, made up and real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offline_eval.estimating import reward_models, rounds, target
from offline_eval.estimating.estimators import Vector
from offline_eval.importing import obd
from offline_eval.log.checking import check_log
from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_log
from offline_eval.log.writing import write_log
from policy.objective import PRESETS, Scales

REAL = Path(__file__).parents[2] / "../shared/data/obd_small"
CLICKS, SCALES = PRESETS["quality"], Scales(1_000.0, 1.0)
HEADER = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user_feature_2,user_feature_3,user-item_affinity_0,user-item_affinity_1,user-item_affinity_2"
)
LINES = (
    "0,2019-11-24 00:00:00.004101+00:00,1,3,0,0.2,81,2d,37,9b,0.0,0.0,0.0",
    "1,2019-11-24 00:00:00+00:00,0,3,1,0.5,81,2d,37,9b,0.0,0.0,0.0",
    "2,2019-11-24 00:00:01.000000+00:00,2,1,0,0.4,81,2d,37,9c,0.0,0.0,0.0",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "men.csv"
    file.write_text("\n".join((HEADER, *LINES)) + "\n")
    return file


def logged(path: Path, feedback: obd.Feedback) -> LoggedData:
    write_log(obd.rows(feedback), str(path))
    return read_log(str(path))


def test_what_is_read(file: Path):
    """As many items as there are affinities; positions count from 1."""
    feedback = obd.read(file)
    assert (feedback.name, feedback.k, len(feedback)) == ("men", 3, 3)
    assert feedback.made_at_ms.tolist() == [1574553600004, 1574553600000, 1574553601000]
    assert feedback.shares().tolist() == [[0.0, 0.0, 1.0], [0.0] * 3, [0.5, 0.5, 0.0]]
    assert feedback.user[0] == ("81", "2d", "37", "9b")


def test_what_it_becomes(file: Path, tmp_path: Path):
    """A log that passes every check, in the order of time, the position part of the context."""
    data = logged(tmp_path / "log", obd.read(file))
    check_log(data)
    assert data.decision_ids == ("men-1", "men-0", "men-2")
    assert [data.ids[i] for i in data.arm] == ["item-0", "item-1", "item-2"]
    assert data.propensity.tolist() == [0.5, 0.2, 0.4]
    assert data.rewards(CLICKS, SCALES).tolist() == [1.0, 0.0, 0.0]
    assert (data.contexts[0] == data.contexts[1]).all()
    assert (data.contexts[0] != data.contexts[2]).any()


def test_a_uniform_policys_pmf_is_exact(file: Path, tmp_path: Path):
    """Where every propensity is 1 / k."""
    third = repr(1 / 3)
    text = file.read_text()
    file.write_text(text.replace(",0.2,8", f",{third},8").replace(",0.5,8", f",{third},8"))
    file.write_text(file.read_text().replace(",0.4,8", f",{third},8"))
    data = logged(tmp_path / "log", obd.read(file))
    assert data.pmf == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("propensity_score", "pscore"), "without propensity_score"),
        (("user-item_affinity", "affinity"), r"without user-item_affinity_\.\.\."),
        ((",2,1,0,", ",7,1,0,"), "expected item_id in 0 to 2"),
        ((",2,1,0,", ",2,0,0,"), "expected positions from 1, got 0"),
    ],
)
def test_another_layout_is_refused(file: Path, change: tuple[str, str], says: str):
    """With what is missing."""
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ValueError, match=says):
        obd.read(file)


@pytest.fixture(scope="module", params=["men", "women"])
def campaign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[obd.Feedback, LoggedData]]:
    """Both policies' logs of one campaign."""
    if not REAL.exists():
        pytest.skip("needs the Open Bandit Dataset's sample in ../shared/data/obd_small")
    read = {name: obd.read(REAL / f"{name}_{request.param}.parquet") for name in ("random", "bts")}
    folder = tmp_path_factory.mktemp(request.param)
    return {name: (one, logged(folder / name, one)) for name, one in read.items()}


def time_average(data: LoggedData, shown: obd.Feedback, acts: obd.Feedback) -> Vector:
    """What the policy that acts in one file would have done on the log of another, on average."""
    at = [int(decision_id.rsplit("-")[-1]) for decision_id in data.decision_ids]
    items = np.array([int(arm.rsplit("-")[-1]) for arm in data.ids])
    by_position = acts.shares()[shown.position[at] - 1][:, items]
    return np.take_along_axis(by_position, data.actions, axis=1)


@pytest.mark.parametrize("name", ["snips", "dr", "sndr", "switch_dr", "dros", "ips"])
@pytest.mark.parametrize(("logs", "acts"), [("random", "bts"), ("bts", "random")])
def test_what_one_policys_log_says_of_the_other(
    campaign: dict[str, tuple[obd.Feedback, LoggedData]], logs: str, acts: str, name: str
):
    """The other policy's own click rate lies in the 95% interval of its estimate.

    That rate has an error of its own, which plain IPS needs to be allowed for.
    """
    shown, data = campaign[logs]
    own, _ = campaign[acts]
    uniform = acts == "random"
    pmf = target.uniform(data) if uniform else time_average(data, shown, own)
    reward = data.rewards(CLICKS, SCALES)
    made = rounds.of(data, pmf, reward, reward_models.ridge(data, reward))
    found = rounds.estimates(made)[name]
    assert found.value is not None
    assert found.se is not None
    own_se = own.click.std() / np.sqrt(len(own)) if name == "ips" else 0.0
    assert abs(found.value - own.click.mean()) < 1.96 * np.hypot(found.se, own_se)


def test_ips_and_snips_are_what_the_sample_says(
    campaign: dict[str, tuple[obd.Feedback, LoggedData]],
):
    """Its own figures for Bernoulli Thompson sampling from the random log."""
    (shown, data), (own, _) = campaign["random"], campaign["bts"]
    expected = json.loads((REAL / "stats.json").read_text())[f"check/{own.name.split('_')[1]}"]
    pmf = time_average(data, shown, own)
    found = rounds.estimates(rounds.of(data, pmf, data.rewards(CLICKS, SCALES)))
    assert found["ips"].value == pytest.approx(expected["ips_of_avg_bts_from_random"], rel=1e-9)
    assert found["snips"].value == pytest.approx(expected["snips"], rel=1e-9)
