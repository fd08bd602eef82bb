"""Text signals by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import signals
from features.lexicon import TASK_INDEX
from features.signals import read


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    """Apostrophes, underscores and punctuation separate; accents do not."""
    assert read("Don't PANIC: 42_times, café!").words == [
        *(b"don", b"t", b"panic", b"42", b"times"),
        "café".encode(),
    ]


def test_unspaced_scripts_are_read_by_character() -> None:
    """An ideograph or kana is a word; Latin words beside it stay whole."""
    assert [w.decode() for w in read("写Python函数。").words] == ["写", "python", "函", "数"]


def test_distinct_words_keep_their_order() -> None:
    """So sums over them are the same in every process."""
    assert read("b a b c a").distinct == (b"b", b"a", b"c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of the country?", "en"),
        ("Der Hund ist nicht auf dem Sofa", "de"),
        ("Le chat est sur la table avec une souris", "fr"),
        ("El perro de los vecinos no es como el tuyo", "es"),
        ("今天天气很好", "zh"),
        ("日本の首都はどこですか", "ja"),
        ("한국의 수도는 어디입니까", "ko"),
        ("Как дела сегодня", "ru"),
        ("ما هي عاصمة مصر", "ar"),
        ("xyzzy", "und"),
        ("", "und"),
    ],
)
def test_language(text: str, expected: str) -> None:
    """Scripts first, then common words, else undetermined."""
    assert signals.language(read(text)) == expected


def test_code_looks_like_code() -> None:
    """A function body scores high, prose nothing."""
    code = "def f(xs):\n    return {x: str(x) for x in xs if x != None}\n"
    assert signals.code_density(read(code)) > 0.4
    assert signals.code_density(read("The weather is nice in the mountains today.")) == 0.0


def test_formulas_look_like_maths() -> None:
    """LaTeX and numbers score, prose does not."""
    assert signals.math_density(read(r"Solve $x^2 + 3x = 10$ for $x > 0$")) > 0.5
    assert signals.math_density(read("The weather is nice in the mountains today.")) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is it?", 1.0),
        ("who wrote faust", 1.0),
        ("Really? Then tell me.", 0.5),
        ("Tell me.", 0.0),
        ("", 0.0),
    ],
)
def test_question(text: str, expected: float) -> None:
    """A question mark at the end or a question word at the start asks; elsewhere it half asks."""
    assert signals.question(read(text)) == expected


def test_choices() -> None:
    """Lettered options are noticed."""
    assert signals.choices(read("Pick one:\n(A) red\n(B) blue")) == 1.0
    assert signals.choices(read("Pick a colour.")) == 0.0


def test_structure_grows_with_lines_and_lists() -> None:
    """One line has none; ten list items have much."""
    assert signals.structure(read("one line")) == 0.0
    assert signals.structure(read("\n- item" * 10)) == pytest.approx(30 / 38)


def test_tokens_are_near_a_tokenizer() -> None:
    """cl100k counts 10 for the sentence, 100 ideographs cost about one each."""
    sentence = "The quick brown fox jumps over the lazy dog."
    assert signals.tokens(read(sentence)) == pytest.approx(10, abs=2)
    assert signals.tokens(read("天" * 100)) == pytest.approx(100, rel=0.05)


def test_quantities_and_facts() -> None:
    """`How many` asks for a number; `who` asks for a fact only in a question."""
    assert signals.how_many(read("How many apples?"))
    assert signals.asks_fact(read("The dragon: who killed it?"))
    assert not signals.asks_fact(read("A story about a dragon who sings."))


def test_instructions_count_at_either_end_only() -> None:
    """The verb in the middle of a long text is content, not an instruction."""
    task, filler = TASK_INDEX["translation"], "word " * 100
    assert signals.instructed(read(f"Translate: {filler}"))[task] == 1
    assert signals.instructed(read(f"{filler} Translate this."))[task] == 1
    assert signals.instructed(read(f"{filler} translate {filler}"))[task] == 0


@given(st.text(max_size=300))
def test_every_signal_is_in_its_range(text: str) -> None:
    """Whatever the text, surrogates included."""
    reading = read(text)
    for signal in (
        signals.code_density,
        signals.math_density,
        signals.structure,
        signals.question,
        signals.choices,
    ):
        assert 0.0 <= signal(reading) <= 1.0
    assert signals.tokens(reading) >= 0.0
    assert signals.word_length(reading) >= 0.0
    assert all(score >= 0 for score in signals.topical(reading))
