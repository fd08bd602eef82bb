"""dsjson on Vowpal Wabbit's own examples: what is read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offline_eval.importing import to_dsjson
from offline_eval.importing.dsjson import Reader
from offline_eval.importing.rows import Skipped
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log, read_rows
from offline_eval.log.writing import write_log
from policy.objective import PRESETS, Scales
from policy.records import LoggedDecision

EXAMPLES = Path(__file__).parents[2] / "../shared/data/vw_examples"
needs_examples = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs the shared vw_examples")

REFUSED = {
    "cats_room_temp.json": "continuous actions",
    "cats_train.json": "continuous actions",
    "cb_features_w_zero_vals.dsjson": "the label's cost is not the original one",
    "cb_test.json": "VW's plain JSON format",
    "cb_test256.json": "VW's plain JSON format",
    "ccb_automl.dsjson": "conditional contextual bandit",
    "ccb_data.json": "conditional contextual bandit",
    "ccb_reuse_medium.dsjson": "conditional contextual bandit",
    "igl.dsjson": "interaction-grounded",
    "slates_simple_unlabeled.dsjson": "slates",
}
READ = {
    "cb_simple.json": 1,
    "datascience_cb_1000_0.json": 1_000,
    "datascience_cb_1000_1.json": 1_000,
    "datascience_cb_100_0.json": 100,
    "decisionservice.json": 3,
    "dsjson_cb.json": 23,
    "dsjson_cb_default_ns.json": 4,
    "dsjson_cb_part1.json": 12,
    "dsjson_cb_part2.json": 11,
    "no_shared_features.json": 1,
}


def example(name: str) -> list[LoggedDecision | Skipped]:
    with (EXAMPLES / name).open("rb") as lines:
        return list(Reader().read(lines))


def rows_of(name: str) -> list[LoggedDecision]:
    return [one for one in example(name) if isinstance(one, LoggedDecision)]


@needs_examples
def test_every_example_is_known():
    """A new one must be put among those that are read or those that are refused."""
    files = {p.name for p in EXAMPLES.iterdir() if p.suffix in (".json", ".dsjson")}
    assert files == REFUSED.keys() | READ.keys()


@needs_examples
@pytest.mark.parametrize("name", REFUSED)
def test_examples_of_other_problems_are_refused(name: str):
    """Each line, for the right reason."""
    for one in example(name):
        assert isinstance(one, Skipped)
        assert one.reason.startswith(REFUSED[name])


@needs_examples
@pytest.mark.parametrize("name", READ)
def test_examples_are_read_whole_and_are_valid(tmp_path: Path, name: str):
    """No line is skipped, and the log of them passes its check, exported and imported again too."""
    rows = rows_of(name)
    assert len(rows) == len(example(name)) == READ[name]
    write_log(rows, str(tmp_path / "first"))
    check_log(read_log(str(tmp_path / "first")))
    rows = list(read_rows(str(tmp_path / "first")))
    again = [r for r in Reader().read(to_dsjson.write(rows)) if isinstance(r, LoggedDecision)]
    assert [r.decision.version for r in again] == [r.decision.version for r in rows]
    assert [r.decision.x.tobytes() for r in again] == [r.decision.x.tobytes() for r in rows]
    assert [r.decision.pmf.tolist() for r in again] == [r.decision.pmf.tolist() for r in rows]
    assert [r.outcome.quality for r in again] == [r.outcome.quality for r in rows]


@needs_examples
def test_a_regression_of_vw_is_ours_to_know():
    """A decision that was never used, six outcomes without a decision, a line of no JSON."""
    used, *others = example("b1848_dsjson_parser_regression.txt")
    assert isinstance(used, LoggedDecision)
    assert not used.outcome.executed
    reasons = [one.reason for one in others if isinstance(one, Skipped)]
    assert reasons[:6] == ["an outcome without its decision"] * 6
    assert reasons[6].startswith("not JSON")


@needs_examples
def test_ips_of_the_policy_that_logged_is_the_mean_reward(tmp_path: Path):
    """Each weight pmf[arm] / propensity is 1; 473 of the 1,000 costs in the file are -1."""
    name = "datascience_cb_1000_0.json"
    write_log(rows_of(name), str(tmp_path))
    logged = read_log(str(tmp_path))
    check_log(logged)
    rewards = logged.rewards(PRESETS["quality"], Scales(1.0, 1.0))
    chosen = logged.actions == logged.arm[:, None]
    ratio = logged.pmf[chosen] / logged.propensity
    assert (ratio * rewards).mean() == rewards.mean() == 0.473
    lines = (EXAMPLES / name).read_text().splitlines()
    costs = [json.loads(text)["_label_cost"] for text in lines]
    assert sum(costs) == -473
    # The policy that always takes the arm of the first row, by IPS: 4 where it was taken.
    first = logged.arm == logged.arm[0]
    by_hand = sum(4 * -cost for cost, taken in zip(costs, first, strict=True) if taken) / 1_000
    assert np.where(first, 1 / logged.propensity, 0.0) @ rewards / 1_000 == pytest.approx(by_hand)
