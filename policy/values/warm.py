"""A warm start: encoder and value model from outcomes that are known before the first query.

They come from a battery in which every arm answered the same queries, or from an old log. Knows no
file and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from features.fitting import fit_encoder
from features.profile import Profile, profile
from policy.arms.catalog import Catalog, Index, Vector
from policy.config.schema import PolicyConfig
from policy.policy import Request
from policy.records import OutcomeBatch, packed
from policy.values import models
from policy.values.protocol import ValueModel

AT_MOST = 500.0  # outcomes per arm that a start counts as
FEWEST_TEXTS = 50  # fewer tell nothing of how texts differ


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """n queries, and m outcomes of them: of all arms alike, or of those that were chosen.

    `row` (m,) is the query of each outcome, `arm` (m,) its catalog position, `propensity` (m,) the
    probability with which it was chosen, NaN where nothing was: all arms answered. The components
    (m,) are NaN where unknown.
    """

    catalog: Catalog
    queries: Sequence[Request]
    row: Index
    arm: Index
    quality: Vector
    latency_ms: Vector
    cost_usd: Vector
    error: NDArray[np.bool_]
    propensity: Vector


def warm_start(
    config: PolicyConfig,
    corpus: Corpus,
    at_most: float = AT_MOST,
    encoder: Encoder | None = None,
) -> tuple[Encoder, ValueModel | None]:
    """An encoder fitted on a corpus' texts and task labels, and a model that starts from its
    outcomes; they count at most as `at_most` outcomes per arm, so that live ones can overrule them.

    The encoder is the data-free one where there are fewer than 50 texts. `encoder` is one that was
    fitted on the same corpus before.
    """
    if encoder is None:
        encoder = fitted_encoder(config, corpus.queries)
    model = models.new_model(config, encoder)
    if model is not None:
        model.start(_batch(corpus, encoder), at_most, corpus.row)
    return encoder, model


def start_from_events(
    config: PolicyConfig, encoder: Encoder, batch: OutcomeBatch, at_most: float = AT_MOST
) -> ValueModel | None:
    """A model that starts from the outcome events of an old log, encoded by `encoder`."""
    model = models.new_model(config, encoder)
    if model is not None:
        model.start(batch, at_most)
    return model


def fitted_encoder(config: PolicyConfig, queries: Sequence[Request]) -> Encoder:
    """An encoder fitted on these texts; the data-free one where there are fewer than 50."""
    with_text = [asked for asked in queries if asked.query is not None]
    if len(with_text) < FEWEST_TEXTS:
        return models.default_encoder(config)
    texts = [asked.query.focus() for asked in with_text if asked.query is not None]
    return fit_encoder(texts, [asked.hints.task_type or "" for asked in with_text])


def _batch(corpus: Corpus, encoder: Encoder) -> OutcomeBatch:
    m = len(corpus.row)
    known = [profile(asked.query, asked.hints) for asked in corpus.queries]
    x = np.zeros((len(known), encoder.d), dtype=np.float32)
    for i, (asked, its) in enumerate(zip(corpus.queries, known, strict=True)):
        x[i] = encoder.encode(asked.query, asked.hints, its)
    everything = packed(corpus.catalog.enabled)
    return OutcomeBatch(
        arms=[corpus.catalog.ids[arm] for arm in corpus.arm],
        x=x[corpus.row],
        quality=corpus.quality,
        latency_ms=corpus.latency_ms,
        cost_usd=corpus.cost_usd,
        error=corpus.error,
        settled=np.zeros((m, 3), dtype=bool),
        list_cost_usd=_list_cost_usd(corpus, known),
        propensity=corpus.propensity,
        catalogs=[corpus.catalog] * m,
        eligible=[everything] * m,
    )


def _list_cost_usd(corpus: Corpus, known: Sequence[Profile]) -> Vector:
    every = np.arange(len(corpus.catalog))
    of_query = np.array(
        [corpus.catalog.list_cost_usd(k.prompt_tokens, k.output_tokens, every) for k in known]
    )
    costs: Vector = of_query[corpus.row, corpus.arm]
    return costs
