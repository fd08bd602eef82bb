"""The warm start: what is known before the first query, and how live evidence overrules it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from policy.arms.catalog import Catalog
from policy.config.schema import ObjectiveConfig, PolicyConfig
from policy.objective import Weights
from policy.policy import Request
from policy.records import OutcomeBatch, packed
from policy.values.linear.model import LinearModel
from policy.values.protocol import ValueModel
from policy.values.warm import Corpus, _batch, warm_start
from tests.features.test_encoder import SUBJECTS
from tests.policy.one_query import forecast_one
from tests.policy.test_catalog import arm

CONFIG = PolicyConfig(objective=ObjectiveConfig(quality=1.0), floor=0.0)
QUALITY = Weights.of(quality=1.0)


def corpus(n: int = 200, seed: int = 0, labels: bool = True) -> Corpus:
    """n queries on three subjects; `cook` answers those on cooking well, `jack` all of them so-so.

    A third of the queries is hard for both.
    """
    rng = np.random.default_rng(seed)
    names = rng.choice(list(SUBJECTS), size=n)
    texts = [" ".join(rng.choice(SUBJECTS[name].split(), size=8)) for name in names]
    hard = rng.random(n) < 1 / 3
    expected = np.stack([np.where(names == "cooking", 0.9, 0.3), np.full(n, 0.6)], axis=1)
    quality = np.clip(expected - 0.3 * hard[:, None] + 0.05 * rng.standard_normal((n, 2)), 0, 1)
    nothing = np.full(2 * n, np.nan)
    return Corpus(
        catalog=Catalog((arm("cook"), arm("jack"))),
        queries=[
            Request(Query(text=text), Hints(task_type=str(name) if labels else None))
            for text, name in zip(texts, names, strict=True)
        ],
        row=np.repeat(np.arange(n), 2),
        arm=np.tile([0, 1], n),
        quality=quality.ravel(),
        latency_ms=nothing,
        cost_usd=nothing,
        error=np.zeros(2 * n, dtype=bool),
        propensity=nothing,
    )


def chosen(model: ValueModel | None, encoder: Encoder, asked: Request) -> str:
    """The arm of the highest expected quality."""
    known = profile(asked.query, asked.hints)
    x = encoder.encode(asked.query, asked.hints, known)
    assert model is not None
    bound = model.view().bind(("cook", "jack"))
    forecast = forecast_one(bound, x, np.arange(2), np.zeros(2), QUALITY)
    return ("cook", "jack")[int(forecast.utility.argmax())]


def right(model: ValueModel | None, encoder: Encoder, labels: bool) -> float:
    """The share of fresh queries that get the better arm."""
    fresh = corpus(60, seed=9)
    asked = [q if labels else Request(q.query) for q in fresh.queries]
    best = ["cook" if q.hints.task_type == "cooking" else "jack" for q in fresh.queries]
    hits = [chosen(model, encoder, q) == b for q, b in zip(asked, best, strict=True)]
    return float(np.mean(hits))


def test_a_warm_policy_is_right_from_the_first_query():
    """With the label, and from the text alone: the corpus has told how the labels' texts read."""
    encoder, model = warm_start(CONFIG, corpus())
    assert right(model, encoder, labels=True) == 1.0
    assert right(model, encoder, labels=False) > 0.95


def test_a_corpus_without_labels_still_tells_texts_apart():
    """The projection is fitted on its texts."""
    encoder, model = warm_start(CONFIG, corpus(600, labels=False))
    assert encoder.labels == ()
    assert right(model, encoder, labels=False) > 0.9


def test_a_small_corpus_fits_no_encoder():
    """Forty texts tell nothing of how texts differ."""
    encoder, model = warm_start(CONFIG, corpus(40))
    assert not encoder.fitted
    assert model is not None
    assert model.events == 80


def test_a_policy_that_learns_nothing_has_no_start():
    """There is nothing to fit but the encoder."""
    assert warm_start(PolicyConfig(model="uniform"), corpus())[1] is None


def test_what_is_hard_for_all_is_no_noise_between_arms():
    """Outcomes of the same query count for more where what they have in common is known."""
    together = LinearModel(Encoder.default().groups, CONFIG.scales)
    apart = LinearModel(Encoder.default().groups, CONFIG.scales)
    paired = corpus()
    batch = _batch(paired, Encoder.default())
    together.start(batch, 1e9, paired.row)
    apart.start(batch, 1e9)
    assert together.sums()["weight"][0, 0] > 2.0 * apart.sums()["weight"][0, 0]


def test_a_start_counts_as_a_set_number_of_outcomes():
    """However many there were, per arm; and it is forgotten ten times as slowly as events."""
    config = CONFIG.model_copy(update={"forgetting": 0.998, "notice_changes": False})
    _, model = warm_start(config, corpus(), at_most=50.0)
    assert isinstance(model, LinearModel)
    assert model.sums()["weight"][:, 0] == pytest.approx([50.0, 50.0])
    model.learn(live("jack", 0.6, 4_000))
    each = config.forgetting**0.5  # of two arms
    left = 50.0 * each**400
    assert model.sums()["weight"][0, 0] == pytest.approx(left)
    assert model.sums()["weight"][1, 0] == pytest.approx(left + (1 - each**4_000) / (1 - each))


def live(name: str, quality: float, n: int) -> OutcomeBatch:
    """n live outcomes of one arm, for queries of which only the bias is known."""
    x = np.zeros((n, 64), dtype=np.float32)
    x[:, 0] = 1.0
    nothing = np.full(n, np.nan)
    return OutcomeBatch(
        arms=[name] * n,
        x=x,
        quality=np.full(n, quality),
        latency_ms=nothing,
        cost_usd=nothing,
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.zeros(n),
        propensity=np.ones(n),
        catalogs=[corpus(1).catalog] * n,
        eligible=[packed(np.ones(2, dtype=bool))] * n,
    )


def test_live_evidence_overrules_the_start():
    """An arm that was good in the battery and fails in service is left."""
    _, model = warm_start(CONFIG, corpus())
    assert isinstance(model, LinearModel)
    before = expected(model)
    model.learn(live("jack", 0.0, 1_000))
    assert before[1] > 0.4
    assert expected(model)[1] < 0.15


def expected(model: LinearModel) -> NDArray[np.float64]:
    """(2,) qualities where only the bias is known."""
    bound = model.view().bind(("cook", "jack"))
    x = np.zeros(64, dtype=np.float32)
    x[0] = 1.0
    return forecast_one(bound, x, np.arange(2), np.zeros(2), QUALITY).outcome[:, 0]


def test_a_new_arm_among_warm_ones_starts_from_what_they_share():
    """Its expected quality lies near theirs, and it is less certain than they are."""
    known = corpus()
    encoder, model = warm_start(CONFIG, known)
    assert model is not None
    bound = model.view().bind(("cook", "jack", "newcomer"))
    asked = next(q for q in known.queries if q.hints.task_type == "cooking")
    x = encoder.encode(asked.query, asked.hints, profile(asked.query, asked.hints))
    forecast = forecast_one(bound, x, np.arange(3), np.zeros(3), QUALITY)
    low, high = sorted(forecast.utility[:2])
    assert low - 0.1 < forecast.utility[2] < high + 0.1
    assert forecast.utility_sd is not None
    assert forecast.utility_sd[2] > 2.0 * forecast.utility_sd[:2].max()
    assert bound.joined[2] == 2 * 200


def test_a_start_survives_its_bytes():
    """What is left of it is stored with the sums."""
    _, model = warm_start(CONFIG, corpus())
    assert isinstance(model, LinearModel)
    again = LinearModel.from_parts(model.to_parts())
    for one in (model, again):
        one.learn(live("jack", 0.6, 300))
    assert again.to_parts() == model.to_parts()


def test_a_start_comes_first():
    """Events that were learned can't be put behind what was known before."""
    _, model = warm_start(CONFIG, corpus())
    assert model is not None
    with pytest.raises(ValueError, match="before the first event"):
        model.start(live("jack", 0.5, 1), 1.0)
