"""Labels for the queries of a set: of those that say nothing, and of one that says something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pointsman.trying.outcomes import OutcomeSet

VALUES = 2_000  # of each empty label, as many as a service may have users


def with_noise(outcomes: OutcomeSet, number: int, seed: int = 0) -> OutcomeSet:
    """With `number` labels more, whose values are drawn at random."""
    values = np.random.default_rng((seed, 12)).integers(VALUES, size=(len(outcomes), number))
    made = (
        {**outcomes.labels_of(row), **{f"id-{i}": f"u{value}" for i, value in enumerate(drawn)}}
        for row, drawn in enumerate(values.tolist())
    )
    return replace(outcomes, labels=tuple(made)) if number else outcomes


def with_category(outcomes: OutcomeSet) -> OutcomeSet:
    """With the category as a label that is not the task type."""
    made = ({**outcomes.labels_of(i), "kind": of} for i, of in enumerate(outcomes.categories))
    return replace(outcomes, labels=tuple(made))
