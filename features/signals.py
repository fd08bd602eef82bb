"""Cheap text signals: one small function each, numbers from counts. No model, no randomness.

What it does not know: hints, arms, and what its numbers are used for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from features.lexicon import (
    CHOICES,
    CODE_WORDS,
    CONTENT,
    DEMANDS,
    FACT_WORDS,
    INSTRUCTION,
    LANGUAGE_WORDS,
    QUESTION_WORDS,
    SCRIPTS,
    TASK_INDEX,
    TASK_TYPES,
    UNSPACED,
)

SCRIPT_SAMPLE = 128  # characters
UNKNOWN_LANGUAGE = "und"  # BCP 47's word for it
CODE_MARKS = b"{}[];=<>_#`"
MATH_MARKS = b"=+*^$\\%<>"
INSTRUCTION_HEAD_WORDS = 40
INSTRUCTION_TAIL_WORDS = 16
MAX_WORDS = 1_000  # beyond what spaced text has in 4,000 characters
TOPICAL_WORDS = 60  # so many different words halve what one topical word tells

_LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyz"
_SEPARATE = bytes(
    c if c >= 128 else (ord(chr(c).lower()) if chr(c).isalnum() else 32) for c in range(256)
)
_HIGH = bytes(range(128, 256))
_WORDLIKE = _LETTERS + _LETTERS.upper() + b" " + _HIGH
_CAPITALS = bytes(range(ord("A"), ord("Z") + 1))
_WIDE_MARKS = re.compile("[\u00a0-\u00bf\u2000-\u206f\u3000-\u303f\uff00-\uff0f]+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_IDEOGRAPH_OR_RUN = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text made ready for counting: `raw` and `words` are UTF-8, words in lower case.

    `distinct` holds each word once, in order of appearance: sums over it are the same everywhere.
    """

    text: str
    raw: bytes
    words: Sequence[bytes]
    distinct: Sequence[bytes]


@lru_cache(maxsize=1)  # profile and encoder read the same text, one after the other
def read(text: str) -> Reading:
    """Split a text into words: runs of letters and digits, one ideograph or kana at a time.

    >>> read("Don't PANIC, 42_times!").words
    [b'don', b't', b'panic', b'42', b'times']
    """
    raw = text.encode("utf-8", "surrogatepass")
    plain = raw if text.isascii() else _spaced(text).encode("utf-8", "surrogatepass")
    words = plain.translate(_SEPARATE).split(None, MAX_WORDS)[:MAX_WORDS]
    return Reading(text, raw, words, tuple(dict.fromkeys(words)))


def _spaced(text: str) -> str:
    text = _WIDE_MARKS.sub(" ", text.lower())
    if _IDEOGRAPH.search(text):
        return " ".join(_IDEOGRAPH_OR_RUN.findall(text))
    return text


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


def _lexicon(table: Mapping[str, str]) -> dict[bytes, tuple[int, ...]]:
    """word -> the positions of the task types it speaks for."""
    found: dict[bytes, tuple[int, ...]] = {}
    for name, words in table.items():
        for word in words.encode().split():
            found[word] = (*found.get(word, ()), TASK_INDEX[name])
    return found


_CONTENT = _lexicon(CONTENT)
_INSTRUCTION = _lexicon(INSTRUCTION)
_UNSPACED = tuple((TASK_INDEX[t], w) for t, words in UNSPACED.items() for w in words.split())
_CODE_WORDS = _words(CODE_WORDS)
_DEMANDS = _words(DEMANDS)
_QUESTION_WORDS = _words(QUESTION_WORDS)
_FACT_WORDS = _words(FACT_WORDS)
_LANGUAGE_WORDS = {language: _words(words) for language, words in LANGUAGE_WORDS.items()}
_LANGUAGES = tuple(_LANGUAGE_WORDS)
_COMMON: frozenset[bytes] = frozenset().union(*_LANGUAGE_WORDS.values())


def share_of(raw: bytes, marks: bytes) -> float:
    """The share of a text's bytes that are one of `marks`, in [0, 1]."""
    return 1.0 - len(raw.translate(None, marks)) / max(len(raw), 1)


def tokens(reading: Reading) -> float:
    """Estimated tokens, >= 0: near cl100k's count on English, one per ideograph."""
    raw = reading.raw
    words, wide = len(reading.words), 0
    if not reading.text.isascii():
        words = len(raw.translate(_SEPARATE).split())
        wide = len(raw) - len(raw.translate(None, _HIGH))
    digits = len(raw) - len(raw.translate(None, b"0123456789"))
    marks = len(raw.translate(None, _WORDLIKE))
    letters = len(raw) - wide - digits - marks - raw.count(b" ")
    return 0.7 * words + 0.08 * letters + 0.6 * (digits + marks) + 0.33 * wide


def code_density(reading: Reading) -> float:
    """How much of the text looks like source code, in [0, 1]."""
    marks = share_of(reading.raw, CODE_MARKS)
    words = len(_CODE_WORDS.intersection(reading.distinct)) / (len(reading.distinct) + 1)
    fence = 0.3 if "```" in reading.text else 0.0
    return min(1.0, fence + 6.0 * max(0.0, marks - 0.01) + 4.0 * words)


def numbers(reading: Reading) -> int:
    """How many words begin with a digit."""
    return len([word for word in reading.words if word < b":"])  # ':' follows '9'


def math_density(reading: Reading) -> float:
    """How much of the text is numbers and formulas, in [0, 1]."""
    count = numbers(reading)
    numeric = count / (len(reading.words) + 4)
    marks = share_of(reading.raw, MATH_MARKS)
    return min(1.0, 2.0 * numeric + 5.0 * max(0.0, marks - 0.005))


def structure(reading: Reading) -> float:
    """How far the text is laid out in lines, lists and blocks, in [0, 1)."""
    text = reading.text
    lines = text.count("\n")
    items = text.count("\n- ") + text.count("\n* ") + text.count("\n#") + text.count("```")
    weight = lines + 2 * items
    return weight / (weight + 8.0)


def choices(reading: Reading) -> float:
    """1 where the text offers lettered or numbered options, else 0."""
    for mark in CHOICES:
        if mark in reading.raw:
            return 1.0
    return 0.0


def question(reading: Reading) -> float:
    """1 for a text that asks at its end or beginning, 0.5 for one that asks somewhere, else 0."""
    text = reading.text
    if text.rstrip().endswith(("?", "？")):
        return 1.0
    if reading.words and reading.words[0] in _QUESTION_WORDS:
        return 1.0
    return 0.5 if "?" in text else 0.0


def form(reading: Reading) -> list[bytes]:
    """How a text is written, as words that no text has: how it begins and ends, its length, lines,
    digits and capitals, and the marks that it uses.

    >>> [word.lstrip(b"\\0") for word in form(read("Who wrote it?"))]
    [b'first who', b'case U', b'last ?', b'length 7', b'lines 0', b'digits 0', b'capitals 0', b'?']
    """
    raw, text = reading.raw, reading.text.strip()
    first, last = text[:1], text[-1:]
    case = "U" if first.isupper() else "l" if first.islower() else "o"
    digits = len(raw) - len(raw.translate(None, b"0123456789"))
    capitals = len(raw) - len(raw.translate(None, _CAPITALS)) - (case == "U")
    told = [
        b"first " + (reading.words[0] if reading.words else b""),
        b"case " + case.encode(),
        b"last " + (b"a" if last.isalpha() else b"0" if last.isdigit() else last.encode()),
        b"length %d" % int(2.0 * math.log2(len(text) + 1)),
        b"lines %d" % min(text.count("\n"), 3),
        b"digits %d" % min(32 * digits // max(len(raw), 1), 4),
        b"capitals %d" % min(64 * capitals // max(len(raw), 1), 4),
    ]
    marks = sorted(set(raw.translate(None, _WORDLIKE)))
    return [b"\0" + word for word in (*told, *(bytes([mark]) for mark in marks))]


def asks_fact(reading: Reading) -> bool:
    """Whether the text is a question for a person, a time, a place or one of several things."""
    return question(reading) == 1.0 and not _FACT_WORDS.isdisjoint(reading.distinct)


def demands(reading: Reading) -> int:
    """How many different words of condition and constraint the text uses."""
    return len(_DEMANDS.intersection(reading.distinct))


def word_length(reading: Reading) -> float:
    """Mean bytes per word; 0 for no words."""
    return len(b"".join(reading.words)) / max(len(reading.words), 1)


def common_words() -> list[bytes]:
    """Words that any text in their language uses; they tell nothing of its subject."""
    return sorted(_COMMON)


def language(reading: Reading) -> str:
    """The language the text is probably in, two letters; "und" where nothing tells."""
    if not reading.text.isascii():
        script = _script(reading.text)
        if script != UNKNOWN_LANGUAGE:
            return script
    common = _COMMON.intersection(reading.distinct)
    if not common:
        return UNKNOWN_LANGUAGE
    votes = [len(words & common) for words in _LANGUAGE_WORDS.values()]
    return _LANGUAGES[votes.index(max(votes))]


def _script(text: str) -> str:
    """The language of the script that a fifth of a sample of the text is written in."""
    sample = text[:: len(text) // SCRIPT_SAMPLE + 1]
    votes = Counter(map(_script_of, sample))
    del votes[UNKNOWN_LANGUAGE]
    if votes.total() * 5 < len(sample) or not votes:
        return UNKNOWN_LANGUAGE
    return "ja" if "ja" in votes else votes.most_common(1)[0][0]  # kana tells it from Chinese


@lru_cache(maxsize=8_192)
def _script_of(character: str) -> str:
    point = ord(character)
    found = (name for first, last, name in SCRIPTS if first <= point <= last)
    return next(found, UNKNOWN_LANGUAGE)


def topical(reading: Reading) -> list[float]:
    """(10,) evidence >= 0 from words anywhere: their count per task type, less in long texts."""
    scores = _counts(_CONTENT, reading.distinct)
    if not reading.text.isascii():
        for task, word in _UNSPACED:
            scores[task] += 4 * (word in reading.text)
    share = 1.0 / (1.0 + len(reading.distinct) / TOPICAL_WORDS)
    return [score * share for score in scores]


def instructed(reading: Reading) -> list[int]:
    """(10,) evidence >= 0 from words where instructions stand: at the beginning and the end."""
    words = reading.words
    head = words[:INSTRUCTION_HEAD_WORDS]
    tail = words[INSTRUCTION_HEAD_WORDS:][-INSTRUCTION_TAIL_WORDS:]
    return _counts(_INSTRUCTION, [*head, *tail])


def _counts(lexicon: Mapping[bytes, tuple[int, ...]], words: Iterable[bytes]) -> list[int]:
    scores = [0] * len(TASK_TYPES)
    for word in lexicon.keys() & words:
        for task in lexicon[word]:
            scores[task] += 1
    return scores


def how_many(reading: Reading) -> bool:
    """Whether the text asks for a quantity."""
    raw = reading.raw
    return b"ow many" in raw or b"ow much" in raw or b"ow long" in raw or b"ow far" in raw
