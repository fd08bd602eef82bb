"""What an operator does to the roles of a policy's versions, and what is in the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis

from policy.config.schema import PolicyConfig
from policy.config.versions import write_config
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore
from serving.store.registered import GateRecord, Refused, Switch
from tests.servers import override

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000
MODELS = ("uniform", "linear", "nearest", "caller")


@pytest.fixture
def store(redis_url: str) -> Iterator[OperatorStore]:
    """Of a policy with four versions, of which the first is champion."""
    with closing(LearnerStore(redis_url, "default")) as registering:
        for model in MODELS:
            config = write_config(PolicyConfig(model=model))
            registering.register(model, config, b"encoder", NOW_MS)
    with closing(OperatorStore(redis_url, "default")) as opened:
        yield opened


def passed(champion: str = "1", age_ms: int = DAY_MS, verdict: str = "pass") -> GateRecord:
    return GateRecord(verdict, champion, NOW_MS - age_ms, ("it is better",), "c0ffee from 0")


def promoted(store: OperatorStore, version: str, keep_share: float = 0.05) -> Switch:
    """Through the gate, on rows of at most a week."""
    return store.promote(
        version,
        "me",
        "a better one",
        NOW_MS,
        max_age_ms=7 * DAY_MS,
        override=False,
        keep_share=keep_share,
    )


def test_a_version_that_has_passed_takes_over(store: OperatorStore):
    """The champion before keeps a share, and is challenger; who and why are recorded."""
    store.record_gate("2", passed(), NOW_MS)
    assert promoted(store, "2") == Switch("2", "1", 0.05)
    state = store.state()
    assert [state[name] for name in ("champion", "previous", "challenger", "share")] == [
        *("2", "1", "1", "0.05")
    ]
    entry = store.audit(["promoted"])[0]
    assert (entry["version"], entry["who"], entry["why"]) == ("2", "me", "a better one")
    assert GateRecord.of(entry["gate"].encode()).newest_ms == NOW_MS - DAY_MS


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (None, "version 2 has not been judged by the gate"),
        (passed(verdict="fail"), "the gate's verdict on version 2 is 'fail'"),
        (passed(verdict="undecided"), "the gate's verdict on version 2 is 'undecided'"),
        (passed(champion="3"), "judged against version 3, but version 1 is champion"),
        (passed(age_ms=8 * DAY_MS), "judged on is 8.0 days old, more than 7.0"),
    ],
)
def test_without_a_pass_that_holds_now_nothing_changes(
    store: OperatorStore, record: GateRecord | None, says: str
):
    """Promise 3: a verdict on this very version, against this champion, on a log that is recent."""
    if record is not None:
        store.record_gate("2", record, NOW_MS)
    before = store.state()
    with pytest.raises(Refused, match=says):
        promoted(store, "2")
    assert store.state() == before
    assert not store.audit(["promoted", "override"])


def test_the_pass_of_another_version_is_none(store: OperatorStore):
    """Each version needs its own."""
    store.record_gate("3", passed(), NOW_MS)
    with pytest.raises(Refused, match="version 2 has not been judged"):
        promoted(store, "2")


def test_a_champion_that_changed_meanwhile_is_seen_in_the_same_step(
    store: OperatorStore, redis_url: str
):
    """The pass counts against the champion at the moment of the switch."""
    store.record_gate("2", passed(), NOW_MS)
    override(redis_url, "3")
    with pytest.raises(Refused, match="judged against version 1, but version 3 is champion"):
        promoted(store, "2")


def test_an_override_passes_over_the_gate_and_is_recorded(store: OperatorStore, redis_url: str):
    """With who, why and when."""
    assert override(redis_url, "2") == "1"
    entry = store.audit(["override"])[0]
    assert (entry["who"], entry["why"], entry["at_ms"]) == ("me", "tests say so", "0")


def test_nobody_shares_with_a_callers_router(store: OperatorStore, redis_url: str):
    """Neither as the champion that goes, nor as the one that comes."""
    assert override(redis_url, "4", keep_share=0.2) == "1"
    assert store.state()["share"] == "0"
    assert override(redis_url, "2", keep_share=0.2) == "4"
    assert store.state()["share"] == "0"
    with pytest.raises(Refused, match="can't be shared"):
        store.challenge("4", 0.1, "me", NOW_MS)
    assert store.challenge("4", 0.0, "me", NOW_MS) == "4"


def test_a_rollback_needs_no_gate_and_is_one_step(store: OperatorStore):
    """What was champion learns on without a share and needs a new pass; then there is no version
    to go back to."""
    store.record_gate("2", passed(), NOW_MS)
    promoted(store, "2")
    assert store.rollback("me", "it errs", NOW_MS) == Switch("1", "2", 0.0)
    state = store.state()
    assert (state["champion"], state["challenger"], state["share"]) == ("1", "2", "0")
    assert store.audit(["rollback"])[0]["why"] == "it errs"
    with pytest.raises(Refused, match="version 2 has not been judged"):
        promoted(store, "2")
    with pytest.raises(Refused, match="no version to go back to from version 1"):
        store.rollback("me", "", NOW_MS)


def test_windows_outlive_verdicts(store: OperatorStore):
    """A version has one alpha for all windows that it is ever judged on, whatever is dropped."""
    for window in ("a", "a", "b", "", "a"):
        store.judged_on("2", window)
        store.record_gate("2", GateRecord("pass", "1", NOW_MS, ()), NOW_MS)
    promoted(store, "2")
    store.rollback("me", "", NOW_MS)
    assert store.files("2").windows == ("a", "b")


def test_a_challenger_of_the_operators_choice(store: OperatorStore):
    """Any registered version but the champion."""
    assert store.challenge("3", 0.1, "me", NOW_MS) is None
    assert (store.state()["challenger"], store.state()["share"]) == ("3", "0.1")
    assert store.challenge("2", 0.0, "me", NOW_MS) == "3"
    with pytest.raises(Refused, match="version 1 is the champion"):
        store.challenge("1", 0.0, "me", NOW_MS)


def test_versions_are_told_with_their_roles(store: OperatorStore):
    """The oldest first, each with the newest verdict."""
    store.record_gate("2", passed(verdict="fail"), NOW_MS - 1)
    store.record_gate("2", passed(), NOW_MS)
    promoted(store, "2")
    told = {info.version: info for info in store.versions()}
    assert [(v, info.model, info.role) for v, info in told.items()] == [
        ("1", "uniform", "challenger"),
        ("2", "linear", "champion"),
        ("3", "nearest", ""),
        ("4", "caller", ""),
    ]
    assert told["1"].gate is None
    assert told["2"].gate == GateRecord(
        "pass", "1", NOW_MS - DAY_MS, ("it is better",), "c0ffee from 0", None, NOW_MS
    )


def test_a_pass_holds_only_for_the_arms_and_prices_it_was_given_on(
    store: OperatorStore, raw: redis.Redis
):
    """After a change of them the version must be judged anew."""
    raw.hset("pm:{default}:state", "catalog", "new")
    store.record_gate("2", replace(passed(), catalog="old"), NOW_MS)
    with pytest.raises(Refused, match="arms or prices have changed since version 2 was judged"):
        promoted(store, "2")
    store.record_gate("2", replace(passed(), catalog="new"), NOW_MS)
    assert promoted(store, "2").champion == "2"


def test_a_verdict_from_before_a_rollback_promotes_nothing(store: OperatorStore):
    """Also where it is recorded afterwards, by a gate that was at work meanwhile."""
    store.record_gate("2", passed(), NOW_MS)
    promoted(store, "2")
    store.rollback("me", "", NOW_MS + 10)
    for newest_ms, at_ms in ((NOW_MS, NOW_MS + 20), (NOW_MS + 20, NOW_MS + 5)):
        store.record_gate("2", replace(passed(), newest_ms=newest_ms), at_ms)
        with pytest.raises(Refused, match="version 2 was judged before it was rolled back"):
            promoted(store, "2")


@pytest.mark.parametrize("share", [math.nan, math.inf, -0.1, 0.6])
def test_a_share_that_is_none_is_refused(store: OperatorStore, share: float):
    """NaN would pass every comparison, and no draw could be made with it."""
    with pytest.raises(ValueError, match=r"a share must be in \[0, 0.5\]"):
        store.challenge("2", share, "me", NOW_MS)
    assert "share" not in store.state()


def test_what_is_not_there_is_named(store: OperatorStore, raw: redis.Redis, redis_url: str):
    """Versions and policies."""
    for call in (
        lambda: promoted(store, "9"),
        lambda: store.challenge("9", 0.0, "me", NOW_MS),
        lambda: store.record_gate("9", passed(), NOW_MS),
        lambda: store.files("9"),
    ):
        with pytest.raises(LookupError, match="policy 'default' has no version '9'"):
            call()
    with (
        closing(OperatorStore(redis_url, "nobody")) as other,
        pytest.raises(LookupError, match="no policy 'nobody' is registered"),
    ):
        other.rollback("me", "", NOW_MS)
    assert not raw.exists("pm:{default}:version:9")
