"""Files of VW's own, with the arguments that we use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vowpal_wabbit_next", reason="no build of vowpal-wabbit-next here")

import vowpal_wabbit_next as vw

from policy.values.vw.regressors import ARGUMENTS
from tests.policy.vw_model import workspace

EXAMPLES = Path(__file__).parents[2] / "../shared/data/vw_examples"
CCB, SLATES, CB = ("--ccb_explore_adf",), ("--slates",), ("--cb", "10")
CATS = ("--cats", "8", "--min_value", "0", "--max_value", "100", "--bandwidth", "5")
IGL = ("--cb_explore_adf", "--experimental_igl", "--coin", "--noconstant", "-q", "UF")
FILES: tuple[tuple[str, str, Sequence[str], int], ...] = (
    ("cb_test.ldf", "text", ARGUMENTS, 2),
    ("cb_test_medium.ldf", "text", ARGUMENTS, 10),
    ("cb_test_non_binary_costs.ldf", "text", ARGUMENTS, 10),
    ("cb_adf_sm.data", "text", ARGUMENTS, 3),
    ("cb_load.dat", "text", CB, 904),
    ("cb_explore_cover.dat", "text", ("--cb_explore", "2"), 8),
    ("cb_eval", "text", CB, 8),
    ("rcv1_cb_eval", "text", CB, 1000),
    ("rcv1_raw_cb_small.vw", "text", CB, 1000),
    ("cb_test.json", "json", ARGUMENTS, 3),
    ("cb_test256.json", "json", ARGUMENTS, 260),
    ("decisionservice.json", "dsjson", ARGUMENTS, 3),
    ("dsjson_cb.json", "dsjson", ARGUMENTS, 23),
    ("dsjson_cb_part1.json", "dsjson", ARGUMENTS, 12),
    ("dsjson_cb_part2.json", "dsjson", ARGUMENTS, 11),
    ("dsjson_cb_default_ns.json", "dsjson", ARGUMENTS, 4),
    ("cb_simple.json", "dsjson", ARGUMENTS, 1),
    ("cb_features_w_zero_vals.dsjson", "dsjson", ARGUMENTS, 2),
    ("no_shared_features.json", "dsjson", ARGUMENTS, 1),
    ("datascience_cb_100_0.json", "dsjson", ARGUMENTS, 100),
    ("datascience_cb_1000_0.json", "dsjson", ARGUMENTS, 1000),
    ("datascience_cb_1000_1.json", "dsjson", ARGUMENTS, 1000),
    ("ccb_test.dat", "text", CCB, 24),
    ("ccb_data.json", "json", CCB, 59),
    ("ccb_automl.dsjson", "dsjson", CCB, 9),
    ("ccb_reuse_medium.dsjson", "dsjson", CCB, 4),
    ("slates_simple.txt", "text", SLATES, 3),
    ("slates_simple_unlabeled.dsjson", "dsjson", SLATES, 2),
    ("cats_train.json", "json", CATS, 10),
    ("cats_room_temp.json", "json", CATS, 100),
    ("igl.dsjson", "dsjson", IGL, 200),
)
needs_examples = pytest.mark.skipif(
    not EXAMPLES.exists(), reason="needs the VW files in ../shared/data/vw_examples"
)


def parsed(regressor: Any, path: Path, form: str) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        if form == "text":
            yield from vw.TextFormatReader(regressor, file)
            return
        parsers = {"json": vw.JsonFormatParser, "dsjson": vw.DSJsonFormatParser}
        parser: Any = parsers[form](regressor)
        for line in file:
            if line.strip():
                yield parser.parse_json(line)


def numbers(prediction: Any) -> list[float]:
    if isinstance(prediction, list | tuple):
        return [number for inner in prediction for number in numbers(inner)]
    return [float(prediction)]


@needs_examples
@pytest.mark.parametrize(("name", "form", "arguments", "n"), FILES, ids=[row[0] for row in FILES])
def test_files_of_vws_own_run(name: str, form: str, arguments: Sequence[str], n: int):
    """Each is parsed, predicted finitely and learned, --cb_adf with the arguments that we use."""
    regressor = workspace(*arguments)
    seen = 0
    for example in parsed(regressor, EXAMPLES / name, form):
        assert np.isfinite(numbers(regressor.predict_one(example))).all()
        regressor.learn_one(example)
        seen += 1
    assert seen >= n


@needs_examples
def test_a_line_that_is_no_decision_is_refused():
    """This log holds observations, which have no action, and ends in a line that is no object."""
    regressor = workspace(*ARGUMENTS)
    examples = parsed(regressor, EXAMPLES / "b1848_dsjson_parser_regression.txt", "dsjson")
    assert [len(next(examples)) for _ in range(7)] == [7, 1, 1, 1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="JSON parser error"):
        next(examples)
