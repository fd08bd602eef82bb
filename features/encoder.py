"""Profile + hints -> x (d,), the context that a policy sees. Knows no arm and no outcome.

Five groups, in this order: a bias, the soft task mix, scaled signals, hashed hints and projected
text. Callers' labels have most of the dimensions, for they tell more than the text does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType, ModuleType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from features import profile as profiles
from features import signals
from features.profile import Profile
from features.query import FOCUS_CHARS, TAIL_CHARS, Hints, Query, shorten

Context = NDArray[np.float32]
Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]

FORMAT = 1  # raise it when the same query would be encoded differently
MAGIC = b"pm-encoder\n"
D = 64
D_TEXT = 12
BUCKETS = 4_096  # a power of two, for the mask
MIN_HINTS = 8
COMMON_WEIGHT = 0.1  # of words that every text has
TASK_PREFIX_WEIGHT = 0.7  # of `code` in the label `code/review`
SIGNAL_SCALE = 0.5
DEFAULT_TEXT_NORM = 0.1  # more of a random projection only slowed learning down
FITTED_TEXT_NORM = 0.2
LABELS_WEIGHT = 0.7  # the norm of all other labels together, beside the task label's 1
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

    `rows` (buckets, d_text + 1) holds each bucket's projection and, last, its squared weight;
    `offset` (d_text,) is what an average text projects to.
    """

    d: int
    rows: Matrix
    offset: Matrix
    fitted: bool = False
    groups: Mapping[str, slice] = field(init=False)
    names: tuple[str, ...] = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        groups = _groups(self.d, self.d_text)
        _check(self.rows, self.offset)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "names", _names(groups))
        object.__setattr__(self, "fingerprint", hashlib.sha256(self._payload()).hexdigest()[:32])

    @property
    def d_text(self) -> int:
        return len(self.offset)

    @classmethod
    def default(cls, d: int = D, d_text: int = D_TEXT) -> Encoder:
        """An encoder that has seen no text: a random projection, which keeps little of it."""
        _groups(d, d_text)
        bits = hashlib.shake_256(b"pointsman text projection").digest(BUCKETS * d_text)
        signs = np.frombuffer(bits, dtype=np.uint8).reshape(BUCKETS, d_text) & 1
        rows = np.ones((BUCKETS, d_text + 1), dtype=np.float32)
        rows[:, :-1] = (2.0 * signs - 1.0) * DEFAULT_TEXT_NORM / math.sqrt(max(d_text, 1))
        common = _common_buckets()
        rows[common] *= COMMON_WEIGHT
        rows[common, -1] *= COMMON_WEIGHT
        return cls(d, rows, np.zeros(d_text, dtype=np.float32))

    @classmethod
    def fit(cls, texts: Iterable[str], d: int = D, d_text: int = D_TEXT) -> Encoder:
        """Fit the text projection on a corpus: truncated SVD of its hashed, idf-weighted words."""
        _groups(d, d_text)
        rows, offset = _fit_projection(_incidence(map(shorten, texts)), d_text)
        return cls(d, rows, offset, fitted=True)

    def encode(self, query: Query | None, hints: Hints, profile: Profile) -> Context:
        """x (d,): every entry finite, most within [-1, 1]."""
        x = np.zeros(self.d, dtype=np.float32)
        x[0] = 1.0
        x[self.groups["task"]] = profile.task_mix
        x[self.groups["signals"]] = [SIGNAL_SCALE * value for value in _signals(profile)]
        self._add_hints(x[self.groups["hints"]], hints)
        if query is not None:
            x[self.groups["text"]] = self.project(query.focus())
        return x

    def project(self, text: str) -> Context:
        """(d_text,) of a text's distinct words; zeros where it has none."""
        words = signals.read(text).distinct
        if not words or not self.d_text:
            return np.zeros(self.d_text, dtype=np.float32)
        total = self.rows.take(_buckets(words), axis=0).sum(axis=0)
        bound = CLIP * FITTED_TEXT_NORM / math.sqrt(self.d_text)
        projected: Context = total[:-1] / math.sqrt(max(float(total[-1]), 1e-12)) - self.offset
        return projected.clip(-bound, bound)

    def _add_hints(self, into: Context, hints: Hints) -> None:
        m = len(into)
        if hints.task_type:
            into += _task_code(hints.task_type, m)
        labels = _labels(hints)
        if labels:
            scale = np.float32(LABELS_WEIGHT / math.sqrt(len(labels)))
            for label in labels:
                into += scale * _code(label, m)

    def _payload(self) -> bytes:
        header = {
            "format": FORMAT,
            "logic": _logic(),
            "d": self.d,
            "d_text": self.d_text,
            "fitted": self.fitted,
        }
        head = json.dumps(header, sort_keys=True).encode() + b"\n"
        return head + self.rows.astype("<f4").tobytes() + self.offset.astype("<f4").tobytes()

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
        if (header["format"], header["logic"]) != (FORMAT, _logic()):
            raise ValueError("this encoder was made by code that encodes differently: fit it again")
        values = np.frombuffer(body, dtype="<f4").astype(np.float32)
        at = BUCKETS * (header["d_text"] + 1)
        rows = values[:at].reshape(BUCKETS, -1)
        return cls(header["d"], rows, values[at:], fitted=header["fitted"])


def _groups(d: int, d_text: int) -> Mapping[str, slice]:
    sizes = {"bias": 1, "task": len(signals.TASK_TYPES), "signals": len(SIGNAL_NAMES)}
    hints = d - sum(sizes.values()) - d_text
    if d_text < 0 or hints < MIN_HINTS:
        raise ValueError(f"d={d} with d_text={d_text} leaves {hints} for hints, needs {MIN_HINTS}")
    groups, start = {}, 0
    for name, size in (*sizes.items(), ("hints", hints), ("text", d_text)):
        groups[name] = slice(start, start + size)
        start += size
    return MappingProxyType(groups)


def _names(groups: Mapping[str, slice]) -> tuple[str, ...]:
    sizes = {name: group.stop - group.start for name, group in groups.items()}
    return (
        "bias",
        *(f"task:{name}" for name in signals.TASK_TYPES),
        *(f"signal:{name}" for name in SIGNAL_NAMES),
        *(f"hint:{i}" for i in range(sizes["hints"])),
        *(f"text:{i}" for i in range(sizes["text"])),
    )


def _check(rows: Matrix, offset: Matrix) -> None:
    if rows.shape != (BUCKETS, len(offset) + 1):
        raise ValueError(f"rows must be {(BUCKETS, len(offset) + 1)}, got {rows.shape}")
    if not (np.isfinite(rows).all() and np.isfinite(offset).all()):
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


def _labels(hints: Hints) -> list[str]:
    """Everything but the task label, sorted: a sum must not depend on the order of JSON keys."""
    labels = [f"label:{len(name)}:{name}={value}" for name, value in hints.labels.items()]
    if hints.language:
        labels.append(f"language:{hints.language.lower()}")
    return sorted(labels)


@lru_cache(maxsize=4_096)
def _task_code(label: str, m: int) -> Context:
    """A task label's code; `code/review` is also, in part, a `code`."""
    total = _code(f"task:{label}", m)
    first, slash, _ = label.partition("/")
    if not slash:
        return total
    shared = total + np.float32(TASK_PREFIX_WEIGHT) * _code(f"task:{first}", m)
    shared /= np.float32(math.sqrt(1.0 + TASK_PREFIX_WEIGHT**2))
    shared.flags.writeable = False
    return shared


@lru_cache(maxsize=16_384)
def _code(label: str, m: int) -> Context:
    """A dense sign code (m,) of norm 1: any two labels differ in about half of the places.

    One-hot buckets would make colliding labels the same for ever; these stay separable.
    """
    raw = label.encode("utf-8", "surrogatepass")
    digest = hashlib.shake_256(b"pointsman hint\n" + raw).digest((m + 7) // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:m]
    code: Context = ((2.0 * bits - 1.0) / math.sqrt(m)).astype(np.float32)
    code.flags.writeable = False
    return code


def _buckets(words: Sequence[bytes]) -> NDArray[np.int64]:
    return np.fromiter(map(crc32, words), dtype=np.int64, count=len(words)) & (BUCKETS - 1)


def _common_buckets() -> NDArray[np.int64]:
    return np.unique(_buckets(signals.common_words()))


@cache
def _logic() -> str:
    """A digest of every constant that decides how a query is encoded."""
    scales = (SIGNAL_SCALE, TASK_PREFIX_WEIGHT, LABELS_WEIGHT, CLIP * FITTED_TEXT_NORM)
    here = (scales, SIGNAL_NAMES, FOCUS_CHARS, TAIL_CHARS)
    tables = (here, _constants(signals), _constants(profiles))
    return hashlib.sha256(json.dumps(tables, default=_plain).encode()).hexdigest()[:16]


def _constants(module: ModuleType) -> dict[str, object]:
    return {k: v for k, v in sorted(vars(module).items()) if k.isupper() and k[0] != "_"}


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def _incidence(texts: Iterable[str]) -> csr_array:
    """(n, buckets) with 1 where a text has a word of the bucket; texts without words left out."""
    readings = map(signals.read, texts)
    columns = [np.unique(_buckets(reading.distinct)) for reading in readings if reading.words]
    starts = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate([*columns, np.zeros(0, dtype=np.int64)])
    return csr_array((np.ones(len(indices)), indices, starts), shape=(len(columns), BUCKETS))


def _fit_projection(present: csr_array, d_text: int) -> tuple[Matrix, Matrix]:
    """Rows and offset from word incidence (n, buckets): dimensions of like spread, together of
    the norm FITTED_TEXT_NORM in the mean square."""
    n = present.shape[0]
    if n <= d_text + 1 or not d_text:
        raise ValueError(f"d_text={d_text} needs more than {d_text + 1} texts to fit, got {n}")
    idf = 1.0 + np.log((1.0 + n) / (1.0 + present.sum(axis=0)))
    weighted = present.multiply(idf).tocsr()
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    unit = weighted.multiply(1.0 / np.maximum(norms, 1e-12)[:, None]).tocsr()
    axes = _singular_axes(unit, d_text)
    projected = unit @ axes
    spread = projected.std(axis=0)
    wanted = FITTED_TEXT_NORM / math.sqrt(d_text)
    gain = np.divide(wanted, spread, out=np.zeros(d_text), where=spread > 1e-6)
    rows = np.column_stack([idf[:, None] * axes * gain, idf**2])
    return rows.astype(np.float32), (projected.mean(axis=0) * gain).astype(np.float32)


def _singular_axes(unit: csr_array, k: int) -> Vector:
    """Right singular vectors (buckets, k), strongest first; the largest entry of each is > 0."""
    _, strengths, axes = svds(unit, k=k, v0=np.ones(min(unit.shape)))
    axes = axes[np.argsort(-strengths)]
    peaks = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    signed: Vector = (axes * np.sign(peaks)).T
    return signed
