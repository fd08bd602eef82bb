"""Variances per label: an empty one's goes towards nothing, and one that tells something stays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features.encoder import Encoder
from features.labels import code
from policy.records import OutcomeBatch
from policy.values.linear.model import LinearModel
from tests.policy.linear_model import QUALITY, SCALES, all_of, unseen

ENCODER = Encoder.default()
LABELS = slice(ENCODER.groups["label0"].start, ENCODER.groups["label2"].stop)
N, ARMS = 2_000, 4
EFFECT, NOISE = 0.15, 0.3


def contexts(teams: np.ndarray, users: np.ndarray) -> np.ndarray:
    """(n, d) of queries with two labels, of which the team says something and the user nothing."""
    x = np.zeros((len(teams), ENCODER.d), dtype=np.float32)
    x[:, 0] = 1.0
    x[:, LABELS] = [
        code({"team": f"t{team}", "user": f"u{user}"})
        for team, user in zip(teams, users, strict=True)
    ]
    return x


@pytest.fixture(scope="module")
def taught() -> LinearModel:
    """What 2,000 outcomes of four arms taught: each of two teams has two arms that serve it well;
    users are 2,000 at random."""
    rng = np.random.default_rng(0)
    arm, team = rng.integers(ARMS, size=N), rng.integers(2, size=N)
    quality = 0.5 + EFFECT * np.where(arm % 2 == team, 1.0, -1.0) + NOISE * rng.standard_normal(N)
    unknown = np.full(N, math.nan)
    model = LinearModel(ENCODER.groups, SCALES)
    model.learn(
        OutcomeBatch(
            arms=[f"arm-{a}" for a in arm],
            x=contexts(team, rng.integers(2_000, size=N)),
            quality=quality,
            latency_ms=unknown,
            cost_usd=unknown,
            error=np.zeros(N, dtype=bool),
            settled=np.zeros((N, 3), dtype=bool),
            list_cost_usd=np.zeros(N),
            **unseen([f"arm-{a}" for a in arm]),
        )
    )
    return model


def utilities(model: LinearModel, x: np.ndarray) -> np.ndarray:
    """(n, arms) in the order of their names."""
    values = model.view().bind([f"arm-{a}" for a in range(ARMS)], usual=QUALITY)
    cost = np.zeros((len(x), ARMS))
    return values.forecast(x, all_of(ARMS), cost, QUALITY).utility


def test_what_an_empty_label_says_is_nothing(taught: LinearModel) -> None:
    """The difference between two arms hardly moves with the user: by less than a tenth of what the
    team is worth."""
    users = np.arange(500)
    made = utilities(taught, contexts(np.zeros(500, dtype=int), users))
    assert (made[:, 0] - made[:, 1]).std() < 0.2 * EFFECT


def test_a_label_that_says_something_keeps_its_effect(taught: LinearModel) -> None:
    """Each team's two good arms are found to be better by what they are, within a fifth."""
    teams = np.arange(200) % 2
    made = utilities(taught, contexts(teams, np.arange(200)))
    for arm in range(ARMS):
        good = made[teams == arm % 2, arm].mean() - made[teams != arm % 2, arm].mean()
        assert good == pytest.approx(2 * EFFECT, rel=0.2)


def test_each_label_has_a_variance_of_its_own(taught: LinearModel) -> None:
    """In units of the noise: far apart, and the empty one's below its guess."""
    changed = code({"team": "t0", "user": "u0"}) != code({"team": "t0", "user": "u1"})
    users = [bool(part.all()) for part in changed.reshape(3, -1)]
    names = list(taught.sizes)
    spread = taught._spread.arm[0] / taught._spread.noise[0]
    of_slot = [float(spread[names.index(f"label{slot}")]) for slot in range(3)]
    empty = [value for value, user in zip(of_slot, users, strict=True) if user]
    telling = [value for value, user in zip(of_slot, users, strict=True) if not user]
    assert max(empty) < 0.02
    assert min(telling) > 5 * max(empty)
