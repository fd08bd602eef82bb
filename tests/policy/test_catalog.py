"""The catalog: what an arm may say, positions, prices and the revision."""

import datetime
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from policy.arms.arm import Arm, UnknownPrice
from policy.arms.catalog import Catalog


def arm(arm_id: str = "a", **changes: Any) -> Arm:
    fields: dict[str, Any] = {
        "id": arm_id,
        "provider": "local",
        "model": "m",
        "context_window_tokens": 8192,
        "usd_per_mtok_in": 0.5,
        "usd_per_mtok_out": 1.5,
        "prices_checked": datetime.date(2026, 1, 31),
        "prices_source": "p.example/pricing",
    }
    return Arm(**{**fields, **changes})


CATALOG = Catalog(
    (
        arm("a", usd_per_mtok_in=1.0, usd_per_mtok_out=2.0),
        arm("b", usd_per_mtok_in=0.0, usd_per_mtok_out=10.0, capabilities=("chat", "vision")),
        arm("c", usd_per_mtok_in=3.0, usd_per_mtok_out=0.0, enabled=False),
    )
)


def test_cost_by_hand():
    """1,000 tokens in at 1 USD and 500 out at 2 USD per million cost 0.002 USD."""
    assert CATALOG.arm("a").cost_usd(1000, 500) == pytest.approx(0.002)


def test_list_costs_by_hand():
    """1,000 tokens in and 500 out cost 0.002, 0.005 and 0.003 USD; `index` picks and orders."""
    assert CATALOG.list_cost_usd(1000, 500, np.array([0, 1, 2])) == pytest.approx(
        [0.002, 0.005, 0.003]
    )
    assert CATALOG.list_cost_usd(1000, 500, np.array([2, 0])) == pytest.approx([0.003, 0.002])


def test_both_costs_agree():
    """The list cost of an arm is the cost of a call with exactly those tokens, to the last bit."""
    costs = CATALOG.list_cost_usd(1234, 567, np.arange(3))
    assert [CATALOG.arm(arm_id).cost_usd(1234, 567) for arm_id in CATALOG.ids] == list(costs)


def test_the_price_of_a_request_is_part_of_both_costs():
    """0.5 USD per million tokens in, 1.5 out, and a cent for the call."""
    catalog = Catalog((arm("a", usd_per_request=0.01),))
    assert catalog.arm("a").cost_usd(1000, 200) == pytest.approx(0.0108)
    assert catalog.list_cost_usd(1000, 200, np.array([0])) == pytest.approx([0.0108])


def test_what_a_cache_has_to_do_with_has_prices_of_its_own():
    """100 tokens at 0.5, 1,000 at 0.05, 10 at 0.6; a price that isn't given is unknown, never 0,
    and only where it is needed."""
    catalog = Catalog(
        (arm("a", usd_per_mtok_cached_in=0.05, usd_per_mtok_cache_write=0.6), arm("b"))
    )
    assert catalog.arm("a").cost_usd(100, 0, 1000, 10) == pytest.approx(1.06e-4)
    assert catalog.arm("b").cost_usd(100, 0) == pytest.approx(5e-5)
    with pytest.raises(UnknownPrice, match="'b' has no usd_per_mtok_cached_in"):
        catalog.arm("b").cost_usd(100, 0, cached_in=1)
    with pytest.raises(UnknownPrice, match="'b' has no usd_per_mtok_cache_write"):
        catalog.arm("b").cost_usd(100, 0, cache_write=1)


LONG = (
    {"above_tokens": 1000, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 3.0},
    {"above_tokens": 5000, "usd_per_mtok_in": 2.0, "usd_per_mtok_out": 6.0},
)


def test_a_long_prompt_has_the_prices_of_its_tier():
    """All of a call's tokens do, from one token beyond on; list costs say the same to the last bit,
    for one query and for several."""
    catalog = Catalog((arm("a"), arm("b", price_tiers=LONG), arm("c", price_tiers=LONG[:1])))
    lengths = np.array([[1000.0], [1001.0], [5000.0], [5001.0]])
    by_hand = [0.65e-3, 1.301e-3, 5.3e-3, 10.602e-3]
    assert [catalog.arm("b").cost_usd(n, 100) for n in lengths[:, 0]] == pytest.approx(by_hand)
    costs = catalog.list_cost_usd(lengths, np.full((4, 1), 100.0), np.array([2, 1, 0]))
    for row, n in zip(costs, lengths[:, 0], strict=True):
        assert list(row) == [catalog.arm(arm_id).cost_usd(n, 100) for arm_id in "cba"]
        assert list(row) == list(catalog.list_cost_usd(n, 100, np.array([2, 1, 0])))


def test_what_a_cache_had_counts_towards_a_prompts_length():
    """990 read and 11 from the cache are 1,001; and a tier's own price of the cache holds."""
    tiers = ({**LONG[0], "usd_per_mtok_cached_in": 0.1},)
    one = arm("a", price_tiers=tiers, usd_per_mtok_cached_in=0.05)
    assert one.cost_usd(990, 0, cached_in=11) == pytest.approx((990 * 1.0 + 11 * 0.1) / 1e6)
    with pytest.raises(UnknownPrice, match="usd_per_mtok_cache_write for 11 tokens"):
        one.cost_usd(990, 0, cache_write=11)


CHANGES: Any = (
    {"on": datetime.date(2027, 1, 1), "usd_per_mtok_in": 2.0, "usd_per_mtok_out": 3.0},
    {
        "on": datetime.date(2027, 6, 1),
        "usd_per_mtok_in": 4.0,
        "usd_per_mtok_out": 5.0,
        "price_tiers": LONG,
    },
)


def test_announced_prices_hold_from_their_day_on():
    """They take the place of all prices, and of what is announced the rest is left; arms without
    any stay the very same."""
    catalog = Catalog((arm("a"), arm("b", usd_per_mtok_cached_in=0.1, price_changes=CHANGES)))
    assert catalog.at(datetime.date(2026, 12, 31)) is catalog
    first = catalog.at(datetime.date(2027, 1, 1))
    assert first.arms[0] is catalog.arms[0]
    assert first.arm("b") == arm(
        "b", usd_per_mtok_in=2.0, usd_per_mtok_out=3.0, price_changes=CHANGES[1:]
    )
    last = catalog.at(datetime.date(2028, 1, 1))
    assert last.arm("b") == arm("b", usd_per_mtok_in=4.0, usd_per_mtok_out=5.0, price_tiers=LONG)
    assert len({catalog.revision, first.revision, last.revision}) == 3


def test_positions_follow_the_order_given():
    """Arm i stands at position i of the ids and of every vector."""
    assert CATALOG.ids == ("a", "b", "c")
    assert [CATALOG.index(arm_id) for arm_id in CATALOG.ids] == [0, 1, 2]
    assert list(CATALOG.enabled) == [True, True, False]
    assert list(CATALOG.having("vision")) == [False, True, False]
    assert list(CATALOG.among(["c", "a", "unheard-of"])) == [True, False, True]


def test_unknown_arm_is_a_key_error():
    """Asking for an arm that isn't there fails; asking whether it is there doesn't."""
    assert "d" not in CATALOG
    with pytest.raises(KeyError, match="d"):
        CATALOG.arm("d").cost_usd(1, 1)


def test_nobody_can_change_a_catalog():
    """Arms are frozen and the price vectors are read-only."""
    with pytest.raises(ValidationError, match="frozen"):
        CATALOG.arms[0].enabled = False  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        CATALOG.usd_per_mtok_in[0] = 0.0


def test_json_round_trip_keeps_everything():
    """What Redis keeps under a revision reads back as the same catalog with the same revision."""
    rich = Catalog(
        (
            arm(
                "x/y:1",
                priors={"code": 0.1, "math": 1.0},
                tokens_per_second=0.1 + 0.2,
                endpoints=("http://127.0.0.1:1/v1", "second"),
                usd_per_mtok_in=1,
                price_tiers=LONG,
                price_changes=CHANGES,
            ),
        )
    )
    back = Catalog.from_stored(rich.to_stored())
    assert back == rich
    assert back.revision == rich.revision


def test_revision_is_of_the_content():
    """Equal catalogs have equal revisions; a price, an arm's state or the order changes it."""
    a, b = arm("a"), arm("b")
    revisions = [
        Catalog((a, b)).revision,
        Catalog((b, a)).revision,
        Catalog((a,)).revision,
        Catalog((arm("a", usd_per_mtok_in=0.51), b)).revision,
        Catalog((arm("a", enabled=False), b)).revision,
        Catalog((arm("a", prices_checked=datetime.date(2026, 2, 1)), b)).revision,
    ]
    assert len(set(revisions)) == len(revisions)
    assert Catalog((arm("a"), arm("b"))).revision == revisions[0]
    assert all(len(revision) == 12 for revision in revisions)


def test_ids_are_unique_and_there_is_an_arm():
    """Two arms of one id, or none at all, make no catalog."""
    with pytest.raises(ValueError, match="arm id 'a' is given twice, at 0 and 2"):
        Catalog((arm("a"), arm("b"), arm("a")))
    with pytest.raises(ValueError, match="at least one arm"):
        Catalog(())


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "has space"},
        {"id": ""},
        {"id": "x" * 129},
        {"id": "line\n"},
        {"provider": ""},
        {"context_window_tokens": 0},
        {"context_window_tokens": 8192.5},
        {"context_window_tokens": "8192"},
        {"usd_per_mtok_in": -0.01},
        {"usd_per_mtok_in": float("nan")},
        {"usd_per_mtok_out": float("inf")},
        {"usd_per_mtok_out": True},
        {"prices_checked": "2026-01-31"},
        {"prices_source": ""},
        {"price_changes": CHANGES[::-1]},
        {"price_changes": ({**CHANGES[0], "on": "2027-01-01"},)},
        {"price_changes": ({**CHANGES[0], "price_tiers": LONG[::-1]},)},
        {"price_tiers": LONG[::-1]},
        {"price_tiers": (LONG[0], LONG[0])},
        {"price_tiers": ({**LONG[0], "above_tokens": 0},)},
        {"capabilities": ()},
        {"capabilities": ("embedding", "embeddings")},
        {"capabilities": ("telepathy",)},
        {"usd_per_mtok_cached_in": -1.0},
        {"usd_per_request": float("nan")},
        {"capabilities": ("chat", "chat")},
        {"priors": {"code": 1.01}},
        {"priors": {"coding": 0.5}},
        {"tokens_per_second": 0},
        {"endpoints": ("one", "one")},
        {"enabled": 1},
        {"colour": "red"},
    ],
    ids=str,
)
def test_an_arm_with_a_fault_is_refused(changes: dict[str, Any]):
    """Ranges, types, repetitions and unknown keys are checked when an arm is made."""
    with pytest.raises(ValidationError):
        arm(**{"arm_id": changes.pop("id", "a"), **changes})
