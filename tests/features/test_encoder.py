"""The context x: shape, groups, labels, the text projection, and what stays the same for ever."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from features import encoder as module
from features import signals
from features.encoder import FITTED_TEXT_NORM, FORMAT, MAGIC, Encoder
from features.fitting import fit_encoder
from features.profile import profile
from features.query import Hints, Query
from tests.features.test_profile import HINTS, QUERIES

ENCODER = Encoder.default()
SUBJECTS = {
    "cooking": "soup onion oven butter recipe bake garlic pan dough salt taste kitchen",
    "space": "orbit rocket planet star telescope launch moon gravity comet probe galaxy dust",
    "law": "court judge statute appeal verdict contract plaintiff clause evidence jury trial",
}


def encode(text: str | None = None, encoder: Encoder = ENCODER, **hints: object) -> module.Context:
    query = None if text is None else Query(text=text)
    known = Hints.model_validate(hints)
    return encoder.encode(query, known, profile(query, known))


def corpus(n: int = 300) -> tuple[list[str], list[str]]:
    """n texts of eight words from one of three vocabularies, and the vocabulary's name."""
    rng = np.random.default_rng(7)
    names = [str(name) for name in rng.choice(list(SUBJECTS), size=n)]
    return [" ".join(rng.choice(SUBJECTS[name].split(), size=8)) for name in names], names


@given(QUERIES, HINTS)
def test_every_input_has_a_bounded_context(query: Query | None, hints: Hints) -> None:
    """Finite float32 of shape (64,), whatever the text and the labels."""
    x = ENCODER.encode(query, hints, profile(query, hints))
    assert x.shape == (64,)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert np.linalg.norm(x) < 4.0


def test_groups_cover_x_in_order() -> None:
    """Contiguous slices from 0 to d, each with its names."""
    groups = ENCODER.groups
    assert list(groups) == [
        *("bias", "task", "signals", "hints"),
        *("label0", "label1", "label2", "text"),
    ]
    edges = [0, *(group.stop for group in groups.values())]
    assert [group.start for group in groups.values()] == edges[:-1]
    assert edges[-1] == ENCODER.d == len(ENCODER.names) == len(set(ENCODER.names))
    assert ENCODER.names[groups["task"]][0] == "task:code"


@pytest.mark.parametrize(("d", "d_text"), [(20, 0), (64, 60), (64, -1)])
def test_too_few_dimensions_are_refused(d: int, d_text: int) -> None:
    """Hints need room."""
    with pytest.raises(ValueError, match="leaves"):
        Encoder.default(d=d, d_text=d_text)


def test_text_may_have_no_dimensions() -> None:
    """All the room then goes to hints."""
    bare = Encoder.default(d_text=0)
    assert encode("some words", bare).shape == (64,)
    assert bare.groups["hints"] == slice(20, 49)


def test_nothing_known_is_a_bias_and_an_even_mix() -> None:
    """No query and no hints: no length, no label, no text."""
    x = encode()
    assert x[0] == 1.0
    assert x[ENCODER.groups["task"]] == pytest.approx([0.1] * 10)
    assert not x[ENCODER.groups["hints"]].any()
    assert not x[ENCODER.groups["text"]].any()


def test_the_same_bits_in_every_process() -> None:
    """Another process with another hash seed encodes and fits alike."""
    program = (
        "import hashlib; from tests.features.test_encoder import digest; print(digest(), end='')"
    )
    root = str(Path(__file__).parents[2])
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {digest()}


def digest() -> str:
    labels = {"app": "hrm", "team": "a"}
    text = "Translate the café's menu, who's 42? 今天"
    fitted = fit_encoder(corpus()[0])
    parts = [
        encode(text, encoder, task_type="a/b", labels=labels).tobytes()
        for encoder in (ENCODER, fitted)
    ]
    return hashlib.sha256(b"".join(parts) + fitted.fingerprint.encode()).hexdigest()


def test_the_encoding_has_not_changed() -> None:
    """If this fails, the same query is encoded differently: raise FORMAT, then these numbers."""
    x = encode("Write a python function, please.", task_type="code/review", labels={"app": "hrm"})
    weights = np.cos(np.arange(64))
    assert FORMAT == 3
    assert float(x @ weights) == pytest.approx(GOLDEN, abs=1e-5)


GOLDEN = 2.294232


def test_a_context_tells_its_task_type() -> None:
    """The most probable one; none where neither text nor label says anything."""
    x = np.stack([encode("Write a Python function."), encode(task_type="math"), encode()])
    assert ENCODER.task_types(x) == ("code", "math", "unknown")
    assert ENCODER.task_types(np.zeros((1, 64), dtype=np.float32)) == ("unknown",)
    assert ENCODER.task_types(x[:0]) == ()


def test_a_blob_gives_the_encoder_back() -> None:
    """Default and fitted, with equal fingerprints and equal contexts."""
    texts, _ = corpus()
    for encoder in (ENCODER, fit_encoder(texts), Encoder.default(d=48, d_text=4)):
        again = Encoder.from_bytes(encoder.to_bytes())
        assert again.fingerprint == encoder.fingerprint
        assert (again.d, again.fitted) == (encoder.d, encoder.fitted)
        assert np.array_equal(encode(texts[0], again), encode(texts[0], encoder))


def test_a_damaged_blob_is_refused() -> None:
    """Truncated, extended, flipped or foreign bytes are a ValueError, never another encoder."""
    blob = ENCODER.to_bytes()
    flips = [blob[:i] + bytes([blob[i] ^ 1]) + blob[i + 1 :] for i in (0, 20, 60, 5_000)]
    for bad in (b"", b"junk", MAGIC, blob[:-1], blob + b"\0", *flips):
        with pytest.raises(ValueError, match="checksum"):
            Encoder.from_bytes(bad)


def test_an_encoder_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot must not be read with features it was not learned on."""
    blob = ENCODER.to_bytes()
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    with pytest.raises(ValueError, match=f"of format {FORMAT}: .* format {FORMAT + 1}"):
        Encoder.from_bytes(blob)


def test_fingerprints_differ_with_what_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dimensions, fitted text and the format all show."""
    texts, _ = corpus()
    made = [ENCODER, Encoder.default(d=60), Encoder.default(d_text=4), fit_encoder(texts)]
    made.append(fit_encoder(texts[:200]))
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    made.append(Encoder.default())
    assert len({encoder.fingerprint for encoder in made}) == len(made)


def test_a_fitted_projection_is_scaled_and_tells_subjects_apart() -> None:
    """Centred, of norm 0.2 in the mean square, with three subjects at their own places."""
    texts, names = corpus()
    encoder = fit_encoder(texts, d_text=4)
    z = np.array([encoder.project(text) for text in texts])
    assert z.mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-6)
    assert np.sqrt((z**2).sum(axis=1).mean()) == pytest.approx(FITTED_TEXT_NORM, rel=0.02)
    centres = {name: z[[name == other for other in names]].mean(axis=0) for name in SUBJECTS}
    nearest = [min(centres, key=lambda name: _distance(centres[name], row)) for row in z]
    assert np.mean([a == b for a, b in zip(nearest, names, strict=True)]) > 0.95


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a - b))


def test_a_word_that_no_two_texts_had_changes_nothing() -> None:
    """Such as a mistyped one: neither the projection nor what is told of the label, not by its
    share in the text's length either."""
    texts, names = corpus()
    encoder = fit_encoder([*texts, "soup garlic xylophon"], [*names, "cooking"], d_text=4)
    known, typed = "soup onion oven rocket", "soup onion oven rocket zzqq xylophon"
    told = [
        encoder.rows[module.buckets(signals.read(text).distinct)].sum(axis=0)
        for text in (known, typed)
    ]
    assert told[0].any()
    assert np.array_equal(*told)


def test_unseen_and_empty_texts_project_somewhere_finite() -> None:
    """A text of unknown words is near the average; one without words is exactly zero."""
    encoder = fit_encoder(corpus()[0])
    assert not encoder.project("").any()
    assert not encoder.project("?!").any()
    assert np.isfinite(encoder.project("zzzz qqqq")).all()


@pytest.mark.parametrize("texts", [[], ["one text"], ["", "?"] * 50])
def test_too_few_texts_are_refused(texts: list[str]) -> None:
    """Fitting on next to nothing is an error that says how many texts it needs."""
    with pytest.raises(ValueError, match="more than 9 texts"):
        fit_encoder(texts)


def test_a_corpus_of_one_sentence_fits_to_nothing() -> None:
    """Without variance the projection is zero, not noise."""
    encoder = fit_encoder(["the very same words"] * 50)
    assert np.abs(encoder.project("the very same words")).max() < 1e-3
