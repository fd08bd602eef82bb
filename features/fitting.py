"""Fits an encoder on a corpus: its text projection, and how texts tell task labels apart.

Serving doesn't load this file: it is given the fitted encoder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from features import signals
from features.encoder import BUCKETS, D_TEXT, FITTED_TEXT_NORM, D, Encoder, buckets, dimensions
from features.query import shorten

Vector = NDArray[np.float64]

MAX_LABELS = 32  # the most frequent ones; a hint's code has as many dimensions
MIN_PER_LABEL = 5  # texts; a rarer label can't be told from its texts
PENALTY = 0.003  # on squared weights, against a sum of log losses: 0.001 to 0.01 do alike
ITERATIONS = 150
MIN_PER_WORD = 2  # texts; a rarer word tells nothing of another text, and most of these are typos
SHARPNESS = 2.5  # of what words tell of labels: between two labels' codes a typo changes the arm


def fit_encoder(
    texts: Iterable[str],
    labels: Sequence[str] | None = None,
    d: int = D,
    d_text: int = D_TEXT,
) -> Encoder:
    """An encoder fitted on texts and, where some of them have one, on their task labels.

    The projection is a truncated SVD of the hashed, idf-weighted words; the labels' probabilities
    are a multinomial logistic regression on the same words. A text whose label is empty or rare
    teaches the projection only.

    Raises
    ------
    ValueError
        If there are too few texts for `d_text` dimensions, or not one label per text.
    """
    dimensions(d, d_text)
    texts = [shorten(text) for text in texts]
    if labels is not None and len(labels) != len(texts):
        raise ValueError(f"expected a label for each of {len(texts)} texts, got {len(labels)}")
    present, worded = _incidence(texts)
    n = len(worded)
    if n <= d_text + 1 or not d_text:
        raise ValueError(f"d_text={d_text} needs more than {d_text + 1} texts to fit, got {n}")
    texts_with = present.sum(axis=0)
    idf = np.where(texts_with < MIN_PER_WORD, 0.0, 1.0 + np.log((1.0 + n) / (1.0 + texts_with)))
    unit = _unit_rows(present.multiply(idf).tocsr())
    projection, offset = _fit_projection(unit, d_text)
    known = _known(labels or ())
    told = np.zeros((BUCKETS, 0))
    odds = np.zeros(0)
    if known and labels is not None:
        position = {label: i for i, label in enumerate(known)}
        number = np.array([position.get(labels[i], -1) for i in worded])
        told, odds = _fit_labels(unit[np.flatnonzero(number >= 0)], number[number >= 0], len(known))
    told *= SHARPNESS
    rows = np.column_stack([idf[:, None] * projection, idf[:, None] * told, idf**2])
    return Encoder(
        d, rows.astype(np.float32), offset.astype(np.float32), True, known, odds.astype(np.float32)
    )


def _incidence(texts: Sequence[str]) -> tuple[csr_array, list[int]]:
    """(n, buckets) with 1 where a text has a word of the bucket, and which n texts have words."""
    columns, worded = [], []
    for i, text in enumerate(texts):
        reading = signals.read(text)
        if reading.words:
            columns.append(np.unique(buckets((*reading.distinct, *signals.form(reading)))))
            worded.append(i)
    starts = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate([*columns, np.zeros(0, dtype=np.int64)])
    shape = (len(columns), BUCKETS)
    return csr_array((np.ones(len(indices)), indices, starts), shape=shape), worded


def _unit_rows(weighted: csr_array) -> csr_array:
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    unit: csr_array = weighted.multiply(1.0 / np.maximum(norms, 1e-12)[:, None]).tocsr()
    return unit


def _fit_projection(unit: csr_array, d_text: int) -> tuple[Vector, Vector]:
    """(buckets, d_text) and what an average text projects to: dimensions of like spread, together
    of the norm FITTED_TEXT_NORM in the mean square."""
    axes = _singular_axes(unit, d_text)
    projected = unit @ axes
    spread = projected.std(axis=0)
    wanted = FITTED_TEXT_NORM / math.sqrt(d_text)
    gain = np.divide(wanted, spread, out=np.zeros(d_text), where=spread > 1e-6)
    return axes * gain, projected.mean(axis=0) * gain


def _singular_axes(unit: csr_array, k: int) -> Vector:
    """Right singular vectors (buckets, k), strongest first; the largest entry of each is > 0."""
    _, strengths, axes = svds(unit, k=k, v0=np.ones(min(unit.shape)))
    axes = axes[np.argsort(-strengths)]
    peaks = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    signed: Vector = (axes * np.sign(peaks)).T
    return signed


def _known(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels that can be learned, most frequent first; none where there is only one."""
    counted = Counter(label for label in labels if label)
    frequent = sorted((-count, label) for label, count in counted.items() if count >= MIN_PER_LABEL)
    known = tuple(label for _, label in frequent[:MAX_LABELS])
    return known if len(known) > 1 else ()


def _fit_labels(unit: csr_array, number: NDArray[np.int64], k: int) -> tuple[Vector, Vector]:
    """Weights (buckets, k) and log odds before any word (k,), for labels `number` (n,) of k.

    Multinomial logistic regression with a Gaussian prior on the weights (Bishop 2006, "Pattern
    Recognition and Machine Learning", 4.3.4).
    """
    truth = np.eye(k)[number]
    odds: Vector = np.log(0.9 * truth.mean(axis=0) + 0.1 / k)
    words = unit.T.tocsr()

    def loss(flat: Vector) -> tuple[float, Vector]:
        weights = flat.reshape(BUCKETS, k)
        z = unit @ weights + odds
        z -= z.max(axis=1, keepdims=True)
        shares = np.exp(z)
        totals = shares.sum(axis=1, keepdims=True)
        shares /= totals
        lost = np.log(totals[:, 0]) - z[np.arange(len(z)), number]
        value = float(lost.sum() + 0.5 * PENALTY * (flat @ flat))
        gradient = words @ (shares - truth) + PENALTY * weights
        return value, gradient.ravel()

    found = minimize(
        loss,
        np.zeros(BUCKETS * k),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS},
    )
    fitted: Vector = found.x.reshape(BUCKETS, k)
    return fitted, odds
