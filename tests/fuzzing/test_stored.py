"""Stored bytes whose checksums are right, and which say what no writer would: they are read, or
refused with ValueError. And what is written is read, whatever it was; torn, it never is."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encoder import MAGIC as ENCODER
from features.encoder import Encoder
from offline_eval.log.events import from_table, to_table
from policy.arms.catalog import Catalog
from policy.choosing.incumbent import Standing
from policy.comparing import Scoreboard
from policy.config.versions import read_config
from policy.plans.learned import PlanLearning
from policy.records import from_stored, to_json
from policy.stored import Unreadable, opened, sealed, sealed_record
from policy.values import models
from policy.values.linear.model import LinearModel
from policy.values.nearest import NearestModel
from policy.values.parts import Part
from policy.values.snapshot import MAGIC, Header, State, read_head, unpack
from serving.store.states import HEAD, completed, field, joined, lacking
from tests.formats import DECIDED, everything
from tests.fuzzing.damage import damaged, examples, scrambled, soon
from tests.policy import linear_model

STATES = {one.name: one.written for one in everything() if one.kind == "snapshot"}
PYTHON_ONLY = [name for name in STATES if not name.startswith("vw")]


def as_read(state: State) -> None:
    """All that learner and serving make of a state."""
    kind, header = state.header.kind, state.header
    models.read_model(kind, state.parts)
    models.read_view(kind, state.parts)
    Scoreboard.from_record(header.scores)
    Standing.of(header.standing)
    PlanLearning.of(header.plans or "")


@pytest.mark.parametrize("name", PYTHON_ONLY)
def test_parts_that_say_other_things_are_refused_or_read(name: str):
    """ValueError, whatever a part holds. Of Vowpal Wabbit's own files the digest tells alone."""
    state = unpack(STATES[name])

    @examples(25)
    @given(
        st.sampled_from(sorted(state.parts)).flatmap(
            lambda p: st.tuples(st.just(p), damaged(state.parts[p].data))
        )
    )
    def check(changed: tuple[str, bytes]) -> None:
        part, data = changed
        other = unpack(State(state.header, {**state.parts, part: Part.of(data)}).pack())
        for read in (models.read_model, models.read_view):
            with soon(), suppress(ValueError):
                read(name.partition("-")[0], other.parts)

    check()


@examples(25)
@given(st.data())
def test_a_head_that_says_other_things_is_refused_or_read(data: st.DataObject):
    """Unreadable, or ValueError of whoever reads on."""
    whole = STATES["linear-snapshot.bin"]
    head = read_head(whole)
    start = len(MAGIC) + 32 + 4
    said = data.draw(scrambled(json.loads(whole[start : head.length])))
    raw = json.dumps(said).encode("utf-8", "surrogatepass")
    rest = struct.pack(">I", len(raw)) + raw
    forged = MAGIC + hashlib.sha256(rest).digest() + rest + whole[head.length :]
    with soon(), suppress(ValueError):
        as_read(unpack(forged))


@examples(25)
@given(st.data())
def test_an_encoder_that_says_other_things_is_refused_or_read(data: st.DataObject):
    """ValueError."""
    payload = Encoder.default(d_text=0).to_bytes()[len(ENCODER) + 32 :]
    head, _, body = payload.partition(b"\n")
    other = data.draw(st.just(body) | damaged(body))
    said = json.dumps(data.draw(scrambled(json.loads(head)))).encode()
    forged = said + b"\n" + other
    with soon(), suppress(ValueError):
        Encoder.from_bytes(ENCODER + hashlib.sha256(forged).digest() + forged)


@pytest.mark.parametrize(
    ("kind", "read"),
    [("version", read_config), ("catalog", Catalog.from_stored)],
)
def test_records_that_say_other_things_are_refused_or_read(kind: str, read: Callable[[bytes], Any]):
    """Unreadable, the reason in one line."""
    (one,) = (one for one in everything() if one.kind == kind)
    fields = opened(kind, one.written)

    @examples(25)
    @given(scrambled(fields))
    def check(other: Any) -> None:
        if isinstance(other, dict):
            try:
                forged = sealed(kind, other)
            except orjson.JSONEncodeError:
                return
            with soon(), suppress(Unreadable):
                read(forged)

    check()


@examples(30)
@given(scrambled(json.loads(to_json(DECIDED))), st.binary(max_size=9))
def test_a_decision_that_says_other_things_is_refused_or_read(said: Any, x: bytes):
    """Unreadable."""
    if isinstance(said, dict) and said:
        try:
            record = sealed_record("decision", orjson.dumps(said), x)
        except orjson.JSONEncodeError:
            return
        with soon(), suppress(Unreadable):
            from_stored(record, x)


@examples(30)
@given(
    st.dictionaries(
        st.sampled_from([HEAD, "number", field("values"), field("arm:0")]) | st.text(max_size=3),
        st.binary(max_size=99) | st.sampled_from([*STATES.values()]).flatmap(damaged),
        max_size=4,
    )
)
def test_a_hash_of_redis_is_a_state_or_says_why_not(stored: dict[str, bytes]):
    """Unreadable; none at all is none."""
    with soon(), suppress(Unreadable):
        whole = joined({name.encode("utf-8", "surrogatepass"): v for name, v in stored.items()})
        assert (whole is None) == (not stored)
        unpack(whole or b"")
    with soon(), suppress(Unreadable):
        head = read_head(stored.get(HEAD, b""))
        completed(head, {}, {name: stored.get(field(name)) for name in lacking(head, {})})


@examples(15)
@given(
    st.sampled_from(["linear", "nearest"]),
    st.integers(0, 40),
    st.integers(1, 5),
    st.floats(0, 1),
    st.data(),
)
def test_what_a_model_has_learned_is_read_as_it_was(
    kind: str, n: int, k: int, missing: float, data: st.DataObject
):
    """To the bit, from one blob and from a hash; and cut anywhere it is refused."""
    model = (
        LinearModel(linear_model.GROUPS, linear_model.SCALES)
        if kind == "linear"
        else NearestModel(linear_model.D, linear_model.SCALES, 4, 20)
    )
    seed = data.draw(st.integers(0, 99))
    if n:
        model.learn(linear_model.events(n, k, seed, missing))
    for parts, read in (
        (model.to_parts(), models.read_model),
        (model.view().to_parts(), models.read_view),
    ):
        state = State(Header(kind, "1", "e", f"{seed}-0", n), parts)
        blob = state.pack()
        stored = {field(name).encode(): part.data for name, part in parts.items()}
        assert joined({**stored, HEAD.encode(): state.head()}) == blob
        back = unpack(blob)
        assert (back.header, back.parts) == (state.header, parts)
        assert read(kind, back.parts).to_parts() == parts
        cut = data.draw(st.integers(0, len(blob) - 1))
        with pytest.raises(Unreadable):
            unpack(blob[:cut])
        flipped = bytearray(blob)
        flipped[cut] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(Unreadable):
            unpack(bytes(flipped))


NAMES = ["quality", "late", "x", "entry", "arm", "executed", "made_at_ms", "nothing of ours", "é"]
EVENTS = st.dictionaries(
    st.sampled_from(NAMES).map(str.encode),
    st.binary(max_size=9) | st.sampled_from([b"0", b"1", b"0.5", b"nan", b"1e999", b"01", b"-0.0"]),
)


@examples(30)
@given(st.lists(EVENTS, max_size=4))
def test_events_come_back_from_the_log_to_the_byte(events: list[dict[bytes, bytes]]):
    """Whatever their fields hold."""
    entries = [(f"{i}-0", event) for i, event in enumerate(events)]
    assert from_table(to_table(entries)) == entries
