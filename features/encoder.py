"""Profile + hints -> x (d,), the context that a policy sees. Knows no arm and no outcome.

Groups, in this order: a bias, the soft task mix, scaled signals, the hashed task label ("hints"),
a slot for each of three other labels (labels.py) and projected text. Callers' labels have most of
the dimensions, for they tell more than the text does. Fitted on a corpus with task labels
(fitting.py), an encoder gives a query without one the expected code of its label, so that what was
learned from labelled queries serves the others too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType, ModuleType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from features import labels as callers
from features import profile as profiles
from features import signals
from features.labels import D_SLOT, SLOTS, task_code
from features.lexicon import TASK_TYPES
from features.profile import Profile
from features.query import FOCUS_CHARS, TAIL_CHARS, Hints, Query

Context = NDArray[np.float32]
Matrix = NDArray[np.float32]

FORMAT = 3  # raise it when the same query would be encoded differently
MAGIC = b"pm-encoder\n"
D = 64
D_TEXT = 8
BUCKETS = 4_096  # a power of two, for the mask
MIN_HINTS = 8
MAX_D = 4_096  # of stored encoders: one that claims more is damaged
COMMON_WEIGHT = 0.1  # of words that every text has
SIGNAL_SCALE = 0.5
DEFAULT_TEXT_NORM = 0.1  # more of a random projection only slowed learning down
FITTED_TEXT_NORM = 0.2
CLIP = 4.0  # standard deviations
SIGNAL_NAMES = (
    "prompt_length",
    "output_length",
    "code_density",
    "math_density",
    "structure",
    "question",
    "choices",
    "complexity",
    "foreign",
)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Turns a profiled query into x; immutable, and the same bits in every process.

    `rows` (buckets, d_text + number of labels + 1) holds each bucket's projection, its weight for
    each of the task `labels` that texts are told apart by, and last its squared weight. `offset`
    (d_text,) is what an average text projects to, `odds` (labels,) the log odds of the labels
    before any word.
    """

    d: int
    rows: Matrix
    offset: Matrix
    fitted: bool = False
    labels: tuple[str, ...] = ()
    odds: Matrix = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    groups: Mapping[str, slice] = field(init=False)
    names: tuple[str, ...] = field(init=False)
    fingerprint: str = field(init=False)
    _codes: Matrix = field(init=False, repr=False)
    _slots: slice = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups = dimensions(self.d, self.d_text)
        _check(self.rows, self.offset, self.odds, len(self.labels))
        m = groups["hints"].stop - groups["hints"].start
        codes = [task_code(label, m) for label in self.labels]
        object.__setattr__(self, "_codes", np.array(codes, dtype=np.float32).reshape(-1, m))
        object.__setattr__(self, "groups", groups)
        slots = slice(groups["label0"].start, groups[f"label{SLOTS - 1}"].stop)
        object.__setattr__(self, "_slots", slots)
        object.__setattr__(self, "names", _names(groups))
        object.__setattr__(self, "fingerprint", hashlib.sha256(self._payload()).hexdigest()[:32])

    @property
    def d_text(self) -> int:
        return len(self.offset)

    @classmethod
    def default(cls, d: int = D, d_text: int = D_TEXT) -> Encoder:
        """An encoder that has seen no text: a random projection, which keeps little of it."""
        dimensions(d, d_text)
        bits = hashlib.shake_256(b"pointsman text projection").digest(BUCKETS * d_text)
        signs = np.frombuffer(bits, dtype=np.uint8).reshape(BUCKETS, d_text) & 1
        rows = np.ones((BUCKETS, d_text + 1), dtype=np.float32)
        rows[:, :-1] = (2.0 * signs - 1.0) * DEFAULT_TEXT_NORM / math.sqrt(max(d_text, 1))
        common = _commonbuckets()
        rows[common] *= COMMON_WEIGHT
        rows[common, -1] *= COMMON_WEIGHT
        return cls(d, rows, np.zeros(d_text, dtype=np.float32))

    def encode(self, query: Query | None, hints: Hints, profile: Profile) -> Context:
        """x (d,): every entry finite, most within [-1, 1]."""
        x = np.zeros(self.d, dtype=np.float32)
        x[0] = 1.0
        x[self.groups["task"]] = profile.task_mix
        x[self.groups["signals"]] = [SIGNAL_SCALE * value for value in _signals(profile)]
        into = x[self.groups["hints"]]
        if hints.task_type:
            into += task_code(hints.task_type, len(into))
        if hints.labels or hints.language:
            x[self._slots] = callers.code(hints.labels, hints.language)
        if query is not None:
            told = self._told(query.focus())
            x[self.groups["text"]] = self._projected(told)
            if self.labels and not hints.task_type:
                into += self._probabilities(told) @ self._codes
        return x

    def task_types(self, x: Context) -> tuple[str, ...]:
        """The most probable task type of each context (n, d); "unknown" where all are alike."""
        mix = x[:, self.groups["task"]]
        told = mix.max(axis=1) > mix.min(axis=1)
        names = np.where(told, np.array(TASK_TYPES)[mix.argmax(axis=1)], "unknown")
        return tuple(names.tolist())

    def project(self, text: str) -> Context:
        """(d_text,) of a text's distinct words; zeros where it has none."""
        return self._projected(self._told(text))

    def label_probabilities(self, text: str) -> Context:
        """(labels,) how probable each of `labels` is for a text: what stands for a caller's task
        label where there is none."""
        return self._probabilities(self._told(text))

    def _told(self, text: str) -> Context | None:
        """(d_text + labels,) what a text's distinct words tell together; None without words."""
        reading = signals.read(text)
        if not reading.words or self.rows.shape[1] == 1:
            return None
        words = (*reading.distinct, *signals.form(reading)) if self.fitted else reading.distinct
        total = self.rows.take(buckets(words), axis=0).sum(axis=0)
        told: Context = total[:-1] / math.sqrt(max(float(total[-1]), 1e-12))
        return told

    def _projected(self, told: Context | None) -> Context:
        if told is None:
            return np.zeros(self.d_text, dtype=np.float32)
        bound = CLIP * FITTED_TEXT_NORM / math.sqrt(max(self.d_text, 1))
        return (told[: self.d_text] - self.offset).clip(-bound, bound)

    def _probabilities(self, told: Context | None) -> Context:
        odds = self.odds if told is None else told[self.d_text :] + self.odds
        weights = np.exp(odds - odds.max())
        probabilities: Context = weights / weights.sum()
        return probabilities

    def _payload(self) -> bytes:
        header = {
            "format": FORMAT,
            "logic": _logic(),
            "d": self.d,
            "d_text": self.d_text,
            "fitted": self.fitted,
            "labels": self.labels,
        }
        head = json.dumps(header, sort_keys=True).encode() + b"\n"
        return head + b"".join(
            part.astype("<f4").tobytes() for part in (self.rows, self.offset, self.odds)
        )

    def to_bytes(self) -> bytes:
        """One blob with a checksum; `from_bytes` gives an equal encoder."""
        payload = self._payload()
        return MAGIC + hashlib.sha256(payload).digest() + payload

    @classmethod
    def from_bytes(cls, blob: bytes) -> Encoder:
        """Read `to_bytes` back; ValueError for anything else, and for other code's encoders."""
        payload = blob[len(MAGIC) + 32 :]
        digest = blob[len(MAGIC) : len(MAGIC) + 32]
        if not blob.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
            raise ValueError("not an encoder, or damaged: the checksum does not match")
        head, _, body = payload.partition(b"\n")
        header = json.loads(head)
        made_as = header.get("format") if isinstance(header, dict) else None
        if made_as != FORMAT:
            raise ValueError(f"an encoder of format {made_as}: this release reads format {FORMAT}")
        if header.get("logic") != _logic():
            raise ValueError("this encoder was made by code that encodes differently: fit it again")
        try:
            d, d_text, labels = header["d"], header["d_text"], tuple(header["labels"])
            if not (0 < d <= MAX_D and 0 <= d_text <= d):
                raise ValueError(f"d must be in [1, {MAX_D}] and d_text in [0, d], got {header}")
            values = np.frombuffer(body, dtype="<f4").astype(np.float32)
            at = BUCKETS * (d_text + len(labels) + 1)
            rows, offset, odds = np.split(values, [at, at + d_text])
            return cls(d, rows.reshape(BUCKETS, -1), offset, header["fitted"], labels, odds)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an encoder: {error!r}") from None


def dimensions(d: int, d_text: int) -> Mapping[str, slice]:
    sizes = {"bias": 1, "task": len(TASK_TYPES), "signals": len(SIGNAL_NAMES)}
    slots = {f"label{slot}": D_SLOT for slot in range(SLOTS)}
    hints = d - sum(sizes.values()) - sum(slots.values()) - d_text
    if d_text < 0 or hints < MIN_HINTS:
        raise ValueError(f"d={d} with d_text={d_text} leaves {hints} for hints, needs {MIN_HINTS}")
    groups, start = {}, 0
    for name, size in {**sizes, "hints": hints, **slots, "text": d_text}.items():
        groups[name] = slice(start, start + size)
        start += size
    return MappingProxyType(groups)


def _names(groups: Mapping[str, slice]) -> tuple[str, ...]:
    hashed = [name for name in groups if name not in ("bias", "task", "signals")]
    return (
        "bias",
        *(f"task:{name}" for name in TASK_TYPES),
        *(f"signal:{name}" for name in SIGNAL_NAMES),
        *(f"{name}:{i}" for name in hashed for i in range(groups[name].stop - groups[name].start)),
    )


def _check(rows: Matrix, offset: Matrix, odds: Matrix, labels: int) -> None:
    expected = (BUCKETS, len(offset) + labels + 1)
    if rows.shape != expected or odds.shape != (labels,):
        raise ValueError(
            f"rows and odds must be {expected} and {(labels,)}, got {rows.shape} and {odds.shape}"
        )
    if not all(np.isfinite(part).all() for part in (rows, offset, odds)):
        raise ValueError("the text projection must be finite")


def _signals(profile: Profile) -> tuple[float, ...]:
    """In the order of SIGNAL_NAMES."""
    return (
        _log_length(profile.prompt_tokens, centre=6.0),
        _log_length(profile.output_tokens, centre=8.0),
        profile.code_density,
        profile.math_density,
        profile.structure,
        profile.question,
        profile.choices,
        profile.complexity,
        0.0 if profile.language in ("en", signals.UNKNOWN_LANGUAGE) else 1.0,
    )


def _log_length(tokens: int, centre: float) -> float:
    """Doublings from 2^centre tokens, six of them making 1; 0 for no tokens, within [-1, 1.5]."""
    return min((math.log2(1 + tokens) - centre) / 6.0, 1.5) if tokens else 0.0


def buckets(words: Sequence[bytes]) -> NDArray[np.int64]:
    """The bucket of each word, (number of words,)."""
    return np.fromiter(map(crc32, words), dtype=np.int64, count=len(words)) & (BUCKETS - 1)


def _commonbuckets() -> NDArray[np.int64]:
    return np.unique(buckets(signals.common_words()))


@cache
def _logic() -> str:
    """A digest of every constant that decides how a query is encoded."""
    here = (SIGNAL_SCALE, CLIP * FITTED_TEXT_NORM, SIGNAL_NAMES, FOCUS_CHARS, TAIL_CHARS)
    tables = (here, *map(_constants, (callers, signals, profiles)))
    return hashlib.sha256(json.dumps(tables, default=_plain).encode()).hexdigest()[:16]


def _constants(module: ModuleType) -> dict[str, object]:
    return {k: v for k, v in sorted(vars(module).items()) if k.isupper() and k[0] != "_"}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else repr(value)
