"""Query + hints -> Profile: what can be said of a query without calling a model.

Task types here are soft: a mix that sums to 1. What an arm must be able to do is taken from the
query's shape and the caller's hints, never guessed from its words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features import capabilities, signals
from features.lexicon import TASK_INDEX, TASK_TYPES
from features.query import Hints, Query
from features.signals import Reading

Mix = NDArray[np.float64]

HINT_SHARE = 0.9  # how much of the mix a known task_type takes
BASE = (-1.0, -1.0, -1.0, -1.0, -1.0, 0.0, -1.0, -1.0, -4.0, 0.0)  # log odds before any evidence
OUTPUT_TOKENS = (400.0, 350.0, 600.0, 600.0, 60.0, 120.0, 200.0, 200.0, 0.0, 150.0)
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 800
TOPICAL, INSTRUCTED, MAX_EVIDENCE = 0.7, 2.2, 5.0  # log odds per word, and at most
_USUAL_OUTPUT = np.array(OUTPUT_TOKENS)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in TASK_TYPES},
        **dict.fromkeys(("coding", "programming", "codegen", "software", "sql"), "code"),
        **dict.fromkeys(("maths", "mathematics", "logic", "reasoning", "arithmetic"), "math"),
        **dict.fromkeys(("writing", "story", "poetry", "brainstorming"), "creative"),
        **dict.fromkeys(("analyze", "analyse", "research", "analytics"), "analysis"),
        **dict.fromkeys(
            ("extract", "classification", "classify", "classifier", "sentiment", "ner", "tagging"),
            "extraction",
        ),
        **dict.fromkeys(("question answering", "question", "answering", "faq", "trivia"), "qa"),
        **dict.fromkeys(("translate", "translating"), "translation"),
        **dict.fromkeys(
            ("summarisation", "summarize", "summarise", "summary", "tldr"), "summarization"
        ),
        **dict.fromkeys(("embed", "embeddings", "vectorize"), "embedding"),
        **dict.fromkeys(("conversation", "smalltalk", "small talk", "dialogue"), "chat"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What we know of a query. Densities and scores are in [0, 1], counts are >= 0."""

    task_mix: Mix  # (10,) over TASK_TYPES, sums to 1
    prompt_tokens: int
    output_tokens: int
    reserved_tokens: int  # room for the answer: what the caller lets it have, or output_tokens
    characters: int
    language: str
    code_density: float
    math_density: float
    structure: float
    question: float
    choices: float
    complexity: float
    capabilities: frozenset[str]


@lru_cache(maxsize=4_096)
def known_task(label: str) -> str | None:
    """The task type that a caller's label names, by itself, by an alias or by its first word.

    >>> known_task("code/review"), known_task("Question-Answering"), known_task("gsm8k")
    ('code', 'qa', None)
    """
    plain = " ".join(label.lower().replace("/", " ").replace("_", " ").replace("-", " ").split())
    first = plain.split(" ", 1)[0].split(":", 1)[0].split(".", 1)[0]
    return ALIASES.get(plain) or ALIASES.get(first)


class Shape(NamedTuple):
    """What a text looks like, whatever it is about. All but `turns` are in [0, 1]."""

    code: float
    math: float
    structure: float
    question: float
    choices: float
    turns: int


def profile(query: Query | None, hints: Hints) -> Profile:
    """Describe a query; without one, from the hints alone.

    >>> mix = profile(Query(text="Write a Python function that sorts a list."), Hints()).task_mix
    >>> TASK_TYPES[mix.argmax()]
    'code'
    """
    reading = signals.read(query.focus() if query else "")
    shape = _shape(reading, query)
    mix = _task_mix(reading, shape, hints)
    prompt_tokens = _prompt_tokens(query, hints, reading)
    limit = query.output_limit() if query else None
    output_tokens = _output_tokens(hints, mix, prompt_tokens, limit)
    return Profile(
        task_mix=mix,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        reserved_tokens=max(output_tokens, limit or 0),
        characters=query.characters() if query else 0,
        language=_language(hints, reading),
        code_density=shape.code,
        math_density=shape.math,
        structure=shape.structure,
        question=shape.question,
        choices=shape.choices,
        complexity=_complexity(reading, shape),
        capabilities=_capabilities(query, hints),
    )


def _shape(reading: Reading, query: Query | None) -> Shape:
    return Shape(
        code=signals.code_density(reading),
        math=signals.math_density(reading),
        structure=signals.structure(reading),
        question=signals.question(reading),
        choices=signals.choices(reading),
        turns=query.turns() if query else 1,
    )


def _task_mix(reading: Reading, shape: Shape, hints: Hints) -> Mix:
    """What the text tells, or mostly what the caller's label says where it names a task type."""
    odds = _log_odds(reading, shape) if reading.words else [0.0] * len(TASK_TYPES)
    task = known_task(hints.task_type) if hints.task_type else None
    if task is None:
        return np.array(_softmax(odds))
    mix = _softmax(odds, total=1.0 - HINT_SHARE)
    mix[TASK_INDEX[task]] += HINT_SHARE
    return np.array(mix)


def _log_odds(reading: Reading, shape: Shape) -> list[float]:
    """(10,) additive evidence per task type, in the order of TASK_TYPES."""
    odds = [
        base + min(MAX_EVIDENCE, TOPICAL * topical + INSTRUCTED * instructed)
        for base, topical, instructed in zip(
            BASE, signals.topical(reading), signals.instructed(reading), strict=True
        )
    ]
    odds[TASK_INDEX["code"]] += 5.0 * shape.code
    odds[TASK_INDEX["math"]] += 4.0 * shape.math * (1.0 - shape.code)
    if shape.math and signals.how_many(reading) and signals.numbers(reading) >= 2:
        odds[TASK_INDEX["math"]] += 2.5
    odds[TASK_INDEX["qa"]] += (
        1.2 * shape.question + 1.0 * signals.asks_fact(reading) + 1.0 * shape.choices
    )
    odds[TASK_INDEX["chat"]] += 0.5 * min(shape.turns - 1, 4) - 0.02 * min(len(reading.words), 100)
    return odds


def _softmax(odds: list[float], total: float = 1.0) -> list[float]:
    top = max(odds)
    weights = [math.exp(value - top) for value in odds]
    scale = total / sum(weights)
    return [scale * weight for weight in weights]


def _prompt_tokens(query: Query | None, hints: Hints, reading: Reading) -> int:
    if hints.context_tokens is not None:
        return hints.context_tokens
    if query is None:
        return 0
    scale = query.characters() / max(len(reading.text), 1)
    overhead = TOKENS_PER_MESSAGE * query.turns() + TOKENS_PER_IMAGE * query.images()
    return math.ceil(signals.tokens(reading) * scale) + overhead


def _output_tokens(hints: Hints, mix: Mix, prompt_tokens: int, limit: int | None) -> int:
    """The caller's number, or what answers of this mix usually take, a translation its prompt; no
    more than they may."""
    if hints.output_tokens is not None:
        return hints.output_tokens
    usual = float(mix @ _USUAL_OUTPUT)
    beyond = max(0.0, min(prompt_tokens, 4_000) - OUTPUT_TOKENS[TASK_INDEX["translation"]])
    expected = round(usual + float(mix[TASK_INDEX["translation"]]) * beyond)
    return expected if limit is None else min(expected, limit)


def _language(hints: Hints, reading: Reading) -> str:
    """The hint's primary subtag, else what the words tell."""
    if hints.language:
        return hints.language.lower().replace("_", "-").split("-", 1)[0]
    return signals.language(reading)


def _complexity(reading: Reading, shape: Shape) -> float:
    """How demanding the query looks, in [0, 1): length, conditions, long words, formulas."""
    if not reading.words:
        return 0.0
    effort = (
        0.25 * math.log1p(len(reading.words) / 20)
        + 0.10 * signals.demands(reading)
        + 0.15 * min(max(0.0, signals.word_length(reading) - 4.0), 4.0)
        + 0.40 * shape.code
        + 0.50 * shape.math
    )
    return 1.0 - math.exp(-effort)


def _capabilities(query: Query | None, hints: Hints) -> frozenset[str]:
    embeds = hints.task_type is not None and known_task(hints.task_type) == "embedding"
    presumed = {"embeddings" if embeds else "chat"}
    if query is not None:
        presumed |= query.capabilities()
    return capabilities.needed(presumed, hints.capabilities)
