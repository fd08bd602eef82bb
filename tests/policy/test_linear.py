"""The linear value model: exact sums, exact posteriors, a prior that arms share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy import pooling
from policy.linear import LinearModel, LinearView
from policy.objective import Scales, Weights
from policy.records import OutcomeBatch

GROUPS = {"bias": slice(0, 1), "task": slice(1, 4), "hints": slice(4, 8)}
D = 8
SCALES = Scales(latency_ref_ms=1000.0, cost_ref_usd=0.01)
QUALITY = Weights.of(quality=1.0)


def batch(
    n: int, seed: int = 0, arms: tuple[str, ...] = ("a", "b", "c"), **columns: Any
) -> OutcomeBatch:
    """n outcomes of arms that differ: quality 0.3, 0.5, 0.7 by arm, plus what x and noise add."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(arms), size=n)
    x = rng.normal(size=(n, D)).astype(np.float32) / 3
    x[:, 0] = 1.0
    made = OutcomeBatch(
        arms=[arms[i] for i in which],
        x=x,
        quality=np.clip(0.3 + 0.2 * which + 0.1 * x[:, 1] + 0.05 * rng.normal(size=n), 0, 1),
        latency_ms=200.0 * np.exp(0.2 * rng.normal(size=n)),
        cost_usd=0.002 * np.exp(0.2 * rng.normal(size=n)),
        error=np.zeros(n, dtype=bool),
        settled=np.zeros((n, 3), dtype=bool),
        list_cost_usd=np.full(n, 0.002),
    )
    return replace(made, **columns)


def part(of: OutcomeBatch, rows: slice) -> OutcomeBatch:
    return OutcomeBatch(**{name: getattr(of, name)[rows] for name in OutcomeBatch.__slots__})


def model(forgetting: float = 1.0) -> LinearModel:
    return LinearModel(GROUPS, SCALES, forgetting=forgetting)


def taught(*batches: OutcomeBatch, forgetting: float = 1.0) -> LinearModel:
    made = model(forgetting)
    for one in batches:
        made.learn(one)
    return made


def row(**values: float) -> NDArray[np.float32]:
    x = np.zeros(D, dtype=np.float32)
    x[0] = 1.0
    for name, value in values.items():
        x[int(name[1:])] = value
    return x


def forecast(made: LinearModel, arms: list[str], x: NDArray[np.float32], cost_usd: float = 0.002):
    index = np.arange(len(arms))
    return made.view().bind(arms).forecast(x, index, np.full(len(arms), cost_usd), QUALITY)


def test_the_cut_into_batches_changes_nothing():
    """The state is a function of the order of events alone."""
    events = batch(700)
    whole = taught(events, forgetting=0.999)
    cut = taught(
        *(part(events, slice(a, b)) for a, b in ((0, 1), (1, 250), (250, 256), (256, 700))),
        forgetting=0.999,
    )
    for name, value in whole.sums().items():
        np.testing.assert_allclose(cut.sums()[name], value, rtol=1e-9, atol=1e-12)
    assert cut.events == whole.events == 700


def test_sums_are_the_weighted_moments():
    """An event's weight is forgetting to the power of the events behind it, of any arm."""
    events, n = batch(40, arms=("a", "b")), 40
    sums = taught(events, forgetting=0.9).sums()
    age = 0.9 ** np.arange(n - 1, -1, -1.0)
    mine = np.array([arm == events.arms[0] for arm in events.arms])
    x = events.x[mine].astype(np.float64)
    expected = (x * age[mine, None]).T @ x
    np.testing.assert_allclose(sums["xx"][0, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(sums["xy"][0, 0], (age[mine] * events.quality[mine]) @ x, rtol=1e-9)
    assert sums["weight"][0, 0] == pytest.approx(age[mine].sum())


def test_the_posterior_is_bayes_rule():
    """Mean and covariance equal (T^-1 + S/s2)^-1 (T^-1 m + b/s2), given m, T and s2."""
    made = taught(batch(120))
    view = made.view()
    noise = float(view.noise[0])
    prior = _diagonal(view.fresh_cov[0])
    sums = made.sums()
    for i in range(3):
        precision = np.diag(1 / prior) + sums["xx"][i, 0] / noise
        mean = np.linalg.solve(precision, view.fresh_mean[0] / prior + sums["xy"][i, 0] / noise)
        np.testing.assert_allclose(view.mean[i, 0], mean, atol=1e-5)
        cov = np.linalg.inv(precision)
        np.testing.assert_allclose(_diagonal(view.cov[i, 0]), np.diag(cov), rtol=1e-3)


def _diagonal(triangle: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = np.triu_indices(D)
    return triangle[rows == columns].astype(np.float64)


def test_the_shared_mean_is_generalised_least_squares():
    """m weighs each arm's own estimate by (T + s2 S^-1)^-1 (Lindley and Smith 1972)."""
    made = taught(batch(300))
    view = made.view()
    noise, arm = float(view.noise[0]), np.diag(_diagonal(view.fresh_cov[0]))
    pooled = made._spread.pooled[0][made._group]
    sums = made.sums()
    information, evidence = np.diag(1 / pooled), made._start[0] / pooled
    for i in range(3):
        own = np.linalg.solve(sums["xx"][i, 0], sums["xy"][i, 0])
        weight = np.linalg.inv(arm + noise * np.linalg.inv(sums["xx"][i, 0]))
        information = information + weight
        evidence = evidence + weight @ own
    np.testing.assert_allclose(
        view.fresh_mean[0], np.linalg.solve(information, evidence), atol=1e-5
    )


def test_it_learns_what_is_true():
    """After enough outcomes, predictions lie within 0.03 of the arms' true means."""
    made = taught(batch(3000))
    found = forecast(made, ["a", "b", "c"], row())
    assert found.outcome[:, 0] == pytest.approx([0.3, 0.5, 0.7], abs=0.03)
    assert found.outcome[:, 1] == pytest.approx([204.0] * 3, rel=0.05)  # 200 e^(0.04 / 2)
    assert found.outcome[:, 2] == pytest.approx([0.00204] * 3, rel=0.05)


def test_the_noise_is_learned():
    """From a guess of 0.15 to the true variance 0.05^2."""
    assert taught(batch(3000)).view().noise[0] == pytest.approx(0.0025, rel=0.3)


def test_a_new_arm_starts_from_what_the_others_have_in_common():
    """All arms are good at this: so, it is presumed, is the next one, but less surely."""
    events = batch(600)
    made = taught(replace(events, quality=np.full(600, 0.9)))
    found = forecast(made, ["a", "never-seen"], row())
    assert found.outcome[1, 0] == pytest.approx(0.9, abs=0.03)
    assert found.utility_sd is not None
    assert found.utility_sd[1] > found.utility_sd[0]


def test_an_arm_not_played_becomes_uncertain_again():
    """Forgetting counts everybody's events."""
    events = batch(200, arms=("a", "b"))
    made = taught(events, forgetting=0.99)
    before = forecast(made, ["a"], row()).utility_sd
    made.learn(batch(500, seed=1, arms=("b",)))
    after = forecast(made, ["a"], row()).utility_sd
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


def test_a_missing_component_touches_only_itself():
    """NaN is not zero: a part that hasn't come teaches nothing."""
    events = batch(50)
    without = taught(replace(events, quality=np.full(50, np.nan)))
    sums = without.sums()
    assert not sums["xx"][:, 0].any()
    np.testing.assert_array_equal(sums["xx"][:, 1], taught(events).sums()["xx"][:, 1])


def test_parts_teach_as_much_as_the_whole():
    """Quality now and the rest later leave the same sums as all at once, forgetting aside."""
    events, nothing = batch(50), np.full(50, np.nan)
    parts = taught(
        replace(events, latency_ms=nothing, cost_usd=nothing), replace(events, quality=nothing)
    )
    for name in ("xx", "xy", "yy"):
        np.testing.assert_allclose(parts.sums()[name], taught(events).sums()[name], rtol=1e-9)


def test_what_is_settled_is_not_taught_again():
    """An error gives absent components a value, unless an earlier event has given them one."""
    nothing = np.full(20, np.nan)
    failed = batch(
        20, quality=nothing, latency_ms=nothing, cost_usd=nothing, error=np.ones(20, dtype=bool)
    )
    settled = np.tile([False, True, True], (20, 1))
    sums = taught(replace(failed, settled=settled)).sums()
    assert sums["xx"][:, 0].any()
    assert not sums["xx"][:, 1:].any()
    assert taught(failed).sums()["xx"][:, 1].any()


def test_a_price_change_acts_at_once():
    """Cost is learned relative to the list price: twice the price, twice the prediction."""
    made = taught(batch(1000))
    before, after = (forecast(made, ["a"], row(), usd).outcome[0, 2] for usd in (0.002, 0.004))
    assert after / before == pytest.approx(2.0, rel=0.01)


def test_what_was_never_taught_is_unknown():
    """NaN, not a guess that looks like knowledge."""
    events = batch(50, latency_ms=np.full(50, np.nan))
    found = forecast(taught(events), ["a"], row())
    assert np.isnan(found.outcome[0, 1])
    assert np.isfinite(found.outcome[0, [0, 2]]).all()
    assert np.isnan(forecast(model(), ["a"], row()).outcome).all()


def test_weights_of_a_request_agree_with_the_usual_ones():
    """The fast path and the general one are the same formula."""
    made, weights = taught(batch(300)), Weights.of(quality=0.6, latency=0.3, cost=0.1)
    view, x, index, usd = made.view(), row(f2=0.4), np.arange(3), np.full(3, 0.002)
    fast = view.bind(["a", "b", "c"], usual=weights).forecast(x, index, usd, weights)
    slow = view.bind(["a", "b", "c"]).forecast(x, index, usd, weights)
    np.testing.assert_allclose(fast.utility, slow.utility, rtol=1e-6)
    np.testing.assert_allclose(fast.utility_sd, slow.utility_sd, rtol=1e-5)


def test_a_subset_of_arms_is_forecast_alike():
    """An action set changes who is asked, not what is expected."""
    made = taught(batch(300))
    bound, x = made.view().bind(["a", "b", "c"]), row(f3=0.2)
    everyone = bound.forecast(x, np.arange(3), np.full(3, 0.002), QUALITY)
    some = bound.forecast(x, np.array([0, 2]), np.full(2, 0.002), QUALITY)
    np.testing.assert_array_equal(some.utility, everyone.utility[[0, 2]])
    np.testing.assert_array_equal(some.outcome, everyone.outcome[[0, 2]])


def test_bytes_bring_the_same_model_back():
    """And it goes on learning as if nothing had happened."""
    first, more = batch(300), batch(300, seed=1)
    kept = taught(first)
    back = LinearModel.from_bytes(kept.to_bytes())
    for one in (kept, back):
        one.learn(more)
    assert back.to_bytes() == kept.to_bytes()
    view = kept.view()
    assert LinearView.from_bytes(view.to_bytes()).to_bytes() == view.to_bytes()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-8], lambda b: b + b"\0", lambda b: b"", lambda b: b[4:]]
)
def test_damaged_bytes_are_refused(damage: Any):
    """Never a model that looks well and isn't."""
    made = taught(batch(30))
    for blob, read in (
        (made.to_bytes(), LinearModel.from_bytes),
        (made.view().to_bytes(), LinearView.from_bytes),
    ):
        with pytest.raises(ValueError, match=r"."):
            read(damage(blob))


def test_a_context_of_another_length_is_refused():
    """An encoder that changed must not be learned from."""
    events = batch(3)
    with pytest.raises(ValueError, match="shape"):
        model().learn(replace(events, x=events.x[:, :-1]))


def test_guesses_follow_the_noise():
    """Where outcomes scatter a tenth as much, arms are guessed to differ a tenth as much."""
    groups = tuple(GROUPS)
    wide, narrow = (pooling.guess(groups, np.full(5, noise)) for noise in (0.1, 0.01))
    np.testing.assert_allclose(wide.arm, 10 * narrow.arm)
    assert wide.pooled[0, 0] == narrow.pooled[0, 0]  # the bias: an open question either way
