"""Whatever a parser is given, it reads it or raises the error that it documents; soon."""

from __future__ import annotations

import gzip
import io
import json
import math
import tomllib
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_eval.importing import source
from offline_eval.importing.dsjson import Reader
from offline_eval.importing.rows import Skipped
from pointsman.pricing.source import read as read_prices
from policy.config.problems import ConfigError
from policy.config.toml import parse
from policy.records import LoggedDecision
from serving.parsing.checking import Invalid, checked
from serving.parsing.decoding import Malformed, decode
from serving.parsing.unpacking import TooLarge, unpacked
from serving.parsing.usage import Tokens, tokens
from serving.routes import made, requests
from tests.fuzzing.damage import damaged, examples, scrambled, soon
from tests.offline_eval.test_dsjson import COFFEE
from tests.pointsman.lists import LITELLM, MODELS_DEV
from tests.servers import CONFIG

STARTER = (Path(__file__).parents[2] / "pointsman.toml").read_bytes()
USAGES = [
    {"prompt_tokens": 50, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 40}},
    {"input_tokens": 10, "output_tokens": 9, "cache_read_input_tokens": 40},
    {"promptTokenCount": 10, "candidatesTokenCount": 9, "thoughtsTokenCount": 3},
]
ROUTE = {
    "policy": "default",
    "decision_id": "d",
    "query": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    "hints": {"task_type": "code", "context_tokens": 9, "labels": {"a": 1}},
    "constraints": {"allow": ["a"], "max_cost_usd": 0.1, "capabilities": ["tools"]},
    "objective": {"quality": 1.0, "latency": 0.5},
    "chosen": {"arm": "a", "pmf": {"a": 1.0}},
    "alternatives": 3,
    "plans": ["hedge"],
}
REWARD = {
    "decision_id": "d",
    "quality": 1.0,
    "latency_ms": 100,
    "usage": USAGES[0],
    "error": None,
    "attempts": [{"arm": "a", "quality": 0.5, "latency_ms": 9.0, "error": "timeout"}],
    "returned": "a",
}
CORRECTION = {"decision_id": "d", "quality": 0.2, "by": "me", "reason": "why"}
TABLE = b"decision_id,arm,quality,propensity\na,b,0.5,0.25\nb,c,,0.75\n"


MORE = """
[policies.cautious]
incumbent = "small"
max_loss = 0.1
budget = { usd = 5.0, per = "day" }
plans = { hedge = { width = 2 } }
challenger = { model = "nearest", share = 0.1 }
[providers.local]
requests_per_minute = 60
"""


def toml(value: Any) -> str:
    """A value as TOML has it; what it has no word for as an empty string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return '""' if value is None else json.dumps(value)


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"arm": ["a", "b"], "reward": [1.0, None]}), buffer)
    return buffer.getvalue()


@examples(30)
@given(st.one_of(damaged(STARTER), damaged(CONFIG.encode())))
def test_a_configuration_is_one_or_says_why_not(text: bytes):
    """ConfigError, of one line per fault."""
    with soon(), suppress(ConfigError):
        parse(text.decode("utf-8", "replace"), "pointsman.toml")


@examples(30)
@given(scrambled(tomllib.loads(CONFIG + MORE)))
def test_a_configuration_that_says_other_things_is_one_or_says_why_not(said: Any):
    """The same, of what is TOML."""
    if isinstance(said, dict):
        text = "".join(f"{json.dumps(name)} = {toml(value)}\n" for name, value in said.items())
        with soon(), suppress(ConfigError):
            parse(text, "pointsman.toml")


@examples(30)
@given(st.one_of(scrambled(LITELLM), scrambled(MODELS_DEV)).map(json.dumps), st.data())
def test_a_price_list_is_one_or_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
):
    """ValueError."""
    file = tmp_path_factory.getbasetemp() / "prices.json"
    raw = text.encode("utf-8", "surrogatepass")
    file.write_bytes(data.draw(st.just(raw) | damaged(raw)))
    with soon(), suppress(ValueError):
        read_prices(str(file), date(2026, 1, 1))


@examples(30)
@given(st.one_of(scrambled(COFFEE).map(json.dumps), damaged(json.dumps(COFFEE).encode())))
def test_a_line_of_dsjson_is_a_row_or_says_why_not(line: str | bytes):
    """A Skipped, and the lines after it are read."""
    with soon():
        *first, last = Reader().read([line, json.dumps({**COFFEE, "EventId": "another"})])
    assert all(isinstance(one, Skipped | LoggedDecision) for one in first)
    assert isinstance(last, LoggedDecision)


@examples(30)
@given(
    st.one_of(
        damaged(TABLE),
        damaged(b'{"arm": "a", "reward": 1.0}\n{"arm": "b"}\n'),
        damaged(parquet()),
        damaged(gzip.compress(TABLE)),
    )
)
def test_a_table_is_one_or_says_why_not(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """ValueError, or a reason in the place of a row."""
    file = tmp_path_factory.getbasetemp() / "table"
    file.write_bytes(data)
    with soon(), suppress(ValueError):
        for row in source.records(file, lambda _: None):
            assert isinstance(row, dict | str)


@examples(25)
@given(st.sampled_from(USAGES).flatmap(scrambled))
def test_a_usage_block_is_one_or_says_why_not(usage: Any):
    """ValueError."""
    with soon(), suppress(ValueError):
        assert isinstance(tokens(usage), Tokens)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (requests.RouteRequest, ROUTE),
        (requests.RewardRequest, REWARD),
        (requests.CorrectionRequest, CORRECTION),
        (requests.RouteBatch, {"requests": [ROUTE], "defaults": {}, "budget_usd": 1.0}),
        (made.MadeBatch, {"decisions": [{"decision_id": "d"}]}),
    ],
)
def test_a_body_is_one_or_says_what_is_wrong(model: Any, body: dict[str, Any]):
    """Invalid, with the fields; of bytes Malformed."""

    @examples(25)
    @given(scrambled(body), st.data())
    def check(other: Any, data: st.DataObject) -> None:
        with soon(), suppress(Invalid):
            checked(model, other)
        raw = data.draw(damaged(json.dumps(body).encode()))
        with soon(), suppress(Malformed, Invalid):
            checked(model, decode(raw))

    check()


@examples(30)
@given(damaged(gzip.compress(b"x" * 10_000)))
def test_a_packed_body_is_one_or_says_why_not(data: bytes):
    """And never more than the limit."""
    with soon(), suppress(Malformed, TooLarge):
        assert len(unpacked(data, 20_000)) <= 20_000
