"""Profiles by hand, over every input, and on real queries."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.lexicon import TASK_INDEX, TASK_TYPES
from features.profile import HINT_SHARE, Mix, Profile, known_task, profile
from features.query import Hints, Query

LABELS = st.text(max_size=64)
HINTS = st.builds(
    Hints,
    task_type=st.none() | LABELS | st.sampled_from(TASK_TYPES),
    context_tokens=st.none() | st.integers(0, 10**8),
    output_tokens=st.none() | st.integers(0, 10**8),
    language=st.none() | st.text(max_size=35),
    labels=st.dictionaries(LABELS, LABELS, max_size=5),
)
QUERIES = st.none() | st.builds(Query, text=st.text(max_size=500))
DATA = Path(__file__).parents[2] / "../shared/data/llmrouter_14tasks/queries.parquet"


def of(text: str, **hints: object) -> Profile:
    return profile(Query(text=text), Hints.model_validate(hints))


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Fix the bug in this JavaScript function: function add(a, b) { return a - b; }", "code"),
        ("Write a python function to sort a list of lists.", "code"),
        ("Prove that the square root of 2 is irrational.", "math"),
        ("A train travels 60 miles in 2 hours. How many miles does it go in 5 hours?", "math"),
        ("Write a haiku about autumn rain.", "creative"),
        ("Compare the policies of Keynes and Hayek and evaluate their implications.", "analysis"),
        ("Classify the sentiment as positive or negative: I loved it.", "extraction"),
        ("Who wrote Pride and Prejudice?", "qa"),
        ("Translate into French: the weather is nice.", "translation"),
        ("请把下面的句子翻译成英文：今天天气很好。", "translation"),
        ("Summarize the article below in three points.", "summarization"),
        ("hi, how are you doing today?", "chat"),
    ],
)
def test_the_task_mix_of_clear_cases(text: str, task: str) -> None:
    """Plain instructions are recognised without a hint."""
    assert TASK_TYPES[of(text).task_mix.argmax()] == task


@pytest.mark.parametrize(
    ("label", "task"),
    [
        ("code", "code"),
        ("code/review", "code"),
        ("Coding", "code"),
        ("maths", "math"),
        ("question-answering", "qa"),
        ("Summarisation", "summarization"),
        ("classification", "extraction"),
        ("embeddings", "embedding"),
        ("gsm8k", None),
        ("", None),
        ("/", None),
    ],
)
def test_labels_that_name_a_task_type(label: str, task: str | None) -> None:
    """By itself, by an alias, or by the first word; others name none."""
    assert known_task(label) == task


def test_a_known_label_concentrates_the_mix() -> None:
    """The caller knows better than our words."""
    mix = of("Write a haiku about rain.", task_type="code/review").task_mix
    assert mix[TASK_INDEX["code"]] >= HINT_SHARE
    assert mix.sum() == pytest.approx(1.0)


def test_an_unknown_label_leaves_the_mix_to_the_text() -> None:
    """It is hashed by the encoder instead."""
    text = "Write a haiku about rain."
    assert of(text, task_type="gsm8k").task_mix == pytest.approx(of(text).task_mix)


def test_without_a_query_the_hints_speak() -> None:
    """Nothing is measured, the mix is even, and given numbers are taken."""
    known = profile(None, Hints(context_tokens=900, output_tokens=80))
    assert known.task_mix == pytest.approx([0.1] * 10)
    assert (known.prompt_tokens, known.output_tokens, known.complexity) == (900, 80, 0.0)


def test_the_estimate_covers_all_of_a_long_query() -> None:
    """Only 4,000 characters are read, but ten times the text has ten times the tokens."""
    short, long = of("some plain words " * 1_000), of("some plain words " * 10_000)
    assert long.prompt_tokens == pytest.approx(10 * short.prompt_tokens, rel=0.02)


def test_capabilities_come_from_shape_and_hints_only() -> None:
    """An image needs vision, an embedding no chat; words need nothing."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    seen = Query.model_validate({"messages": [{"role": "user", "content": [image]}]})
    assert profile(seen, Hints()).capabilities == {"chat", "vision"}
    assert of("x", task_type="embedding").capabilities == {"embeddings"}
    assert of("x", capabilities=["tools"]).capabilities == {"chat", "tools"}
    assert of("Look at this image and call the tool").capabilities == {"chat"}


def test_who_asks_for_another_kind_of_model_needs_no_chat() -> None:
    """Chat is only presumed; asked for by name it stays needed."""
    assert of("x", capabilities=["embedding"]).capabilities == {"embeddings"}
    assert of("x", capabilities=["rerank"]).capabilities == {"rerank"}
    assert of("x", capabilities=["chat", "embeddings"]).capabilities == {"chat", "embeddings"}


def test_the_answers_limit_bounds_what_is_expected_and_what_is_reserved() -> None:
    """No longer answer is expected than may come, and the window must have room for all of it."""
    free = of("Write a haiku about rain.")
    assert free.reserved_tokens == free.output_tokens > 50
    for limit in (50, 9_000):
        query = Query(text="Write a haiku about rain.", max_tokens=limit)
        known = profile(query, Hints())
        assert known.output_tokens == min(limit, free.output_tokens)
        assert known.reserved_tokens == limit
        hinted = profile(query, Hints(output_tokens=100))
        assert (hinted.output_tokens, hinted.reserved_tokens) == (100, max(100, limit))


@pytest.mark.parametrize(("hint", "expected"), [("en-US", "en"), ("PT_br", "pt"), ("de", "de")])
def test_the_language_hint_wins(hint: str, expected: str) -> None:
    """Its primary subtag, in lower case."""
    assert of("今天天气很好", language=hint).language == expected


def test_hard_looks_harder_than_easy() -> None:
    """Length, conditions and formulas add up, below 1."""
    hard = r"Prove that for every $n \ge 1$ there must exist exactly $\phi(n)$ generators. " * 20
    assert of("hi").complexity < of("Who wrote Faust?").complexity < of(hard).complexity < 1.0


@given(QUERIES, HINTS)
def test_every_input_has_a_profile(query: Query | None, hints: Hints) -> None:
    """The mix is a distribution, everything else is finite and in range."""
    known = profile(query, hints)
    assert known.task_mix.shape == (10,)
    assert known.task_mix.sum() == pytest.approx(1.0, abs=1e-12)
    assert (known.task_mix >= 0).all()
    assert known.prompt_tokens >= 0
    assert known.output_tokens >= 0
    assert 0.0 <= known.complexity <= 1.0


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data set llmrouter_14tasks")
def test_real_queries_look_like_what_they_are() -> None:
    """On average, word problems are maths and programming tasks are code."""
    mixes: dict[str, list[Mix]] = defaultdict(list)
    for row in pq.read_table(DATA, columns=["text", "category"]).to_pylist():
        mixes[row["category"]].append(of(row["text"]).task_mix)
    likely = {name: TASK_TYPES[np.mean(rows, axis=0).argmax()] for name, rows in mixes.items()}
    assert {likely[name] for name in ("mbpp", "human_eval")} == {"code"}
    assert {likely[name] for name in ("gsm8k", "math", "agentverse-mgsm")} == {"math"}
    assert {likely[name] for name in ("natural_qa", "trivia_qa", "commonsense_qa")} == {"qa"}
