"""Bodies large and odd: what is read of them, and that nobody else waits meanwhile."""

from __future__ import annotations

import json
import threading
import time

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.query import Query
from serving.parsing.decoding import Malformed, decode, decode_with_care
from serving.parsing.excerpts import without_middles

MIB = 1 << 20
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
TEXTS = {
    "words": "The quick brown fox: a tale. ",
    "lines": 'He said "so".\n\tAnd then?\r\n',
    "cyrillic": "Привет, мир. ",
    "emoji": "😀 hi ",
    "backslashes": "\\",
    "quotes": '"\\"',
}


@given(VALUES, st.booleans())
def test_decoding_gives_back_what_was_written(value: object, escaped: bool):
    """By either way, with or without escapes."""
    raw = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    assert decode(raw) == decode_with_care(raw) == value


@given(st.dictionaries(st.text(), VALUES, min_size=1), st.data())
def test_a_key_that_stands_twice_is_always_found(body: dict[str, object], data: st.DataObject):
    """Whatever the keys and values hold, colons and escapes among them."""
    pairs = list(body.items())
    pairs.append((data.draw(st.sampled_from(pairs))[0], data.draw(VALUES)))
    escaped = data.draw(st.booleans())
    members = (f"{json.dumps(k, ensure_ascii=escaped)}:{json.dumps(v)}" for k, v in pairs)
    raw = "".join(("[{", ",".join(members), "}]")).encode()
    with pytest.raises(Malformed, match="stands twice"):
        decode(raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 100_000, b"1" * 5_000, b'{"a": "\n"}', b"\xff"])
def test_what_is_no_json_is_malformed(raw: bytes):
    """Too deep and too long a number among it."""
    with pytest.raises(Malformed):
        decode(raw)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("escaped", [True, False])
def test_an_excerpt_tells_what_the_whole_tells(name: str, escaped: bool):
    """The focus is the very same, the length within a thousandth: what the profile reads."""
    for size in (9_000, 70_000, 700_000):
        text = (TEXTS[name] * size)[:size]
        raw = json.dumps({"text": text, "n": ["\\", text]}, ensure_ascii=escaped).encode()
        body = decode_with_care(without_middles(raw))
        whole, cut = Query(text=text), Query(text=body["text"])
        assert cut.focus() == whole.focus()
        assert cut.characters() == pytest.approx(len(text), rel=1e-3)
        assert body["n"] == ["\\", body["text"]]
        assert len(body["text"]) < 4_100


def test_short_strings_stay_as_they_are():
    """To the byte, between and around the long ones."""
    body = {"a:\\": "b" * 8_000, "long": "c" * 100_000, '"': ["\\\\", "", {}]}
    cut = orjson.loads(without_middles(orjson.dumps(body)))
    assert {**cut, "long": body["long"]} == body


def test_other_middles_are_other_texts():
    """A decision's id may not come back with another text that begins and ends alike."""
    one, other = ("a" * 50_000 + mark + "a" * 50_000 for mark in "bc")
    cut = [without_middles(orjson.dumps({"text": text})) for text in (one, other, one)]
    assert cut[0] == cut[2] != cut[1]


def test_a_large_text_is_routed_like_any_other(http: httpx.Client):
    """3 MB are about a million tokens: too much for these arms' windows, and the answer says so;
    300 KB fit the larger one's."""
    answer = http.post("/route", json={"query": {"text": "some plain words " * 180_000}})
    assert answer.status_code == 422
    assert "context window 128000 <" in answer.json()["excluded"][1]["reason"]
    body = {"decision_id": "a", "query": {"text": "some plain words " * 18_000}}
    answer = http.post("/route", json=body)
    assert answer.json()["arm"] == "large"
    assert http.post("/route", json=body).json() == answer.json()
    other = {"text": "some plain words " * 9_000 + "." + "some plain words " * 9_000}
    assert http.post("/route", json={**body, "query": other}).status_code == 409


def test_others_do_not_wait_for_a_large_text(http: httpx.Client):
    """While 8 MB texts come in one after the other, no other request waits long, and each is
    answered soon: both bounds are generous, for tests share their cores."""
    large = orjson.dumps(
        {"query": {"text": "a few words: more\n" * (8 * MIB // 18)}, "hints": {"context_tokens": 9}}
    )
    took: list[float] = []

    def send() -> None:
        with httpx.Client(base_url=http.base_url, timeout=10.0) as client:
            for _ in range(8):
                began = time.perf_counter()
                assert client.post("/route", content=large).status_code == 200
                took.append(time.perf_counter() - began)

    sender = threading.Thread(target=send)
    sender.start()
    waits = []
    while sender.is_alive():
        began = time.perf_counter()
        http.get("/healthz")
        waits.append(time.perf_counter() - began)
    sender.join()
    assert len(took) == 8
    assert min(took) < 0.5
    assert sorted(waits)[len(waits) // 2] < 0.05
