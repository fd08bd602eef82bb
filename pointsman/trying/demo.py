"""The loop with pictures: made-up tasks and arms, the real service, rewards that teach it.

Makes its own data, starts `pointsman up` in a temporary folder on a free port, drives it over HTTP
and stops it. Nothing here is measured on real models; `pointsman simulate` is for real outcomes.
"""

from __future__ import annotations

import datetime
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np

from pointsman.trying.outcomes import OutcomeSet, save
from pointsman.trying.result import Result
from pointsman.trying.routers import Tick
from pointsman.trying.simulate import Traffic, over_http
from pointsman.trying.trial import Service
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.config.schema import Config, ObjectiveConfig, PolicyConfig
from policy.config.toml import to_toml

GRADES = 4  # quality comes in quarters
SLOW_SHARE, SLOW_TIMES = 0.03, 6.0  # of the calls, this many times slower: the heavy tail

POLICY = PolicyConfig(
    objective=ObjectiveConfig(
        quality=0.7, latency=0.15, cost=0.15, latency_ref_ms=12_000.0, cost_ref_usd=0.01
    )
)


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of query: how it is asked, and how long its answers are."""

    name: str
    output_tokens: int
    templates: Sequence[str]


TASKS = (
    Task(
        "code",
        350,
        (
            "Write a {language} function that {verb} a list of {thing}.",
            "This {language} code that {verb} {thing} fails for n = {n}. Find the bug.",
            "Refactor a {language} class that {verb} {thing} and add unit tests.",
        ),
    ),
    Task(
        "math",
        500,
        (
            "A shop sells {n} {thing} a day at {m} dollars each. How much does it take in a week?",
            "Solve {n}x + {m} = {p} for x and show each step.",
            "What is the probability to draw {m} red {thing} out of {n}?",
        ),
    ),
    Task(
        "summarization",
        180,
        (
            "Summarise this report on {thing} from the {place} office in {m} sentences.",
            "Give the key points of a meeting of {n} minutes about {thing} in {place}.",
        ),
    ),
    Task(
        "translation",
        220,
        (
            "Translate into {tongue}: the {thing} for {place} arrive on day {m}.",
            "How do you say 'we have {n} {thing} in {place}' in {tongue}?",
        ),
    ),
    Task(
        "question_answering",
        120,
        (
            "Which {thing} is {place} known for?",
            "In what year did {place} first export {thing}, and how many?",
            "Who is responsible for {thing} at the {place} office?",
        ),
    ),
    Task(
        "creative",
        450,
        (
            "Write a poem of {m} lines about {thing} in {place}.",
            "Invent a short story in which {thing} save {place}, in {n} words.",
        ),
    ),
)
WORDS: Mapping[str, Sequence[str]] = {
    "language": ("Python", "Rust", "Go", "TypeScript", "Java", "SQL"),
    "verb": ("sorts", "merges", "parses", "counts", "validates", "groups"),
    "thing": ("invoices", "apples", "tickets", "sensors", "letters", "bridges", "orders"),
    "place": ("Lisbon", "Oslo", "Nairobi", "Lima", "Hanoi", "Zagreb", "Quebec"),
    "tongue": ("German", "French", "Spanish", "Polish", "Japanese"),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A made-up arm: prices, speed, and its chance of a good answer per task, in TASKS' order."""

    id: str
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    first_token_ms: float
    tokens_per_second: float
    skill: tuple[float, ...]


MODELS = (
    Model("local/small-8b", 0.02, 0.05, 120, 120, (0.45, 0.30, 0.80, 0.78, 0.55, 0.50)),
    Model("local/coder-14b", 0.05, 0.10, 180, 70, (0.85, 0.55, 0.60, 0.45, 0.45, 0.35)),
    Model("hosted/reasoner-32b", 0.60, 2.20, 900, 60, (0.70, 0.93, 0.65, 0.60, 0.60, 0.45)),
    Model("hosted/general-70b", 0.80, 0.90, 350, 80, (0.65, 0.60, 0.80, 0.85, 0.82, 0.68)),
    Model("hosted/frontier", 3.00, 15.00, 700, 60, (0.88, 0.85, 0.88, 0.90, 0.90, 0.92)),
)


def make(rounds: int, seed: int = 0) -> OutcomeSet:
    """What each model would have made of each of some made-up queries."""
    rng = np.random.default_rng(seed)
    task = rng.integers(len(TASKS), size=rounds)
    texts = tuple(_text(rng, TASKS[t]) for t in task)
    hardness = rng.normal(0.0, 1.0, rounds)[:, None]  # a hard query is hard for every arm
    skill = np.array([model.skill for model in MODELS]).T[task]
    chance = 1 / (1 + np.exp(hardness - np.log(skill / (1 - skill))))
    usual = np.array([TASKS[t].output_tokens for t in task])[:, None]
    output_tokens = usual * rng.lognormal(0.0, 0.35, (rounds, len(MODELS)))
    prompt_tokens = np.array([len(text) / 4 for text in texts])[:, None]
    per_mtok_in, per_mtok_out, first_ms, speed = np.array(
        [(m.usd_per_mtok_in, m.usd_per_mtok_out, m.first_token_ms, m.tokens_per_second)
         for m in MODELS]
    ).T  # fmt: skip
    slow = np.where(rng.random(chance.shape) < SLOW_SHARE, SLOW_TIMES, 1.0)
    pace = rng.lognormal(0.0, 0.3, chance.shape) * slow
    return OutcomeSet(
        name="demo",
        query_ids=tuple(f"q{i:05}" for i in range(rounds)),
        texts=texts,
        categories=tuple(TASKS[t].name for t in task),
        catalog=_catalog(),
        quality=rng.binomial(GRADES, chance) / GRADES,
        cost_usd=(prompt_tokens * per_mtok_in + output_tokens * per_mtok_out) / 1e6,
        latency_ms=pace * (first_ms + 1000 * output_tokens / speed),
    )


def _text(rng: np.random.Generator, task: Task) -> str:
    words = {name: str(rng.choice(list(choices))) for name, choices in WORDS.items()}
    n, m, p = rng.integers(2, 90, size=3)
    return str(rng.choice(list(task.templates))).format(**words, n=n, m=m, p=p)


def _catalog() -> Catalog:
    return Catalog(
        tuple(
            Arm(
                id=model.id.partition("/")[2],
                provider=model.id.partition("/")[0],
                model=model.id.partition("/")[2],
                context_window_tokens=128_000,
                usd_per_mtok_in=model.usd_per_mtok_in,
                usd_per_mtok_out=model.usd_per_mtok_out,
                prices_checked=datetime.date(2026, 1, 1),
                prices_source="made up for the demo",
            )
            for model in MODELS
        )
    )


def run(outcomes: OutcomeSet, folder: Path, tick: Tick) -> Result:
    """Write the set to a folder, start the service on its arms, drive it, stop it."""
    save(outcomes, folder)
    config_file = folder / "pointsman.toml"
    config_file.write_text(to_toml(Config(outcomes.catalog, {"default": POLICY})), "utf-8")
    with (
        _sigterm_is_an_exit(),
        TemporaryDirectory(prefix="pointsman-demo-") as data,
        Service(config_file, Path(data)) as service,
    ):
        return over_http(outcomes, POLICY, Traffic(), service.client, tick=tick)


@contextmanager
def _sigterm_is_an_exit() -> Iterator[None]:
    """So that `finally` blocks run."""

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
