"""Query and hints: what is accepted, what is refused, what is looked at."""

import pytest
from pydantic import ValidationError

from features.query import FOCUS_CHARS, Hints, Message, Query, shorten


def chat(*turns: tuple[str, str]) -> Query:
    return Query.model_validate({"messages": [{"role": r, "content": c} for r, c in turns]})


@pytest.mark.parametrize("body", [{}, {"text": None}, {"text": "a", "messages": [{}]}])
def test_a_query_has_exactly_one_of_text_and_messages(body: dict[str, object]) -> None:
    """Neither and both are errors."""
    with pytest.raises(ValidationError):
        Query.model_validate(body)


def test_empty_text_is_a_query() -> None:
    """An empty string is text; only null is none."""
    assert Query(text="").prompt() == ""


def test_the_prompt_joins_messages_and_parts_in_order() -> None:
    """Images add no text, and are counted."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    parts = [{"type": "text", "text": "one"}, image, {"type": "text", "text": "two"}]
    query = Query.model_validate(
        {
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": parts},
            ]
        }
    )
    assert query.prompt() == "be brief\none\ntwo"
    assert (query.images(), query.turns()) == (1, 2)
    assert query.characters() == len("be brief") + len("one\ntwo")


def test_the_focus_begins_with_the_newest_question() -> None:
    """Then come the instructions, then the history from new to old."""
    query = chat(("system", "S"), ("user", "old"), ("assistant", "A"), ("user", "new"))
    assert query.focus() == "new\nS\nA\nold"


def test_a_conversation_without_a_user_is_read_too() -> None:
    """The last message stands in for the question."""
    assert chat(("system", "S"), ("assistant", "A")).focus() == "A\nS"


def test_a_long_history_does_not_push_the_question_out() -> None:
    """The focus never exceeds its bound, however long the messages are."""
    query = chat(("system", "s" * 9_000), ("user", "old " * 9_000), ("user", "What now?"))
    assert query.focus().startswith("What now?\nsss")
    assert len(query.focus()) <= FOCUS_CHARS


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """Instructions stand first or last."""
    text = "start " + "x" * 10_000 + " end"
    short = shorten(text)
    assert len(short) == FOCUS_CHARS
    assert short.startswith("start ")
    assert short.endswith(" end")
    assert shorten("a" * FOCUS_CHARS) == "a" * FOCUS_CHARS


@pytest.mark.parametrize(
    "hints",
    [
        {"task_type": ["code"]},
        {"context_tokens": -1},
        {"context_tokens": 1.5},
        {"context_tokens": "12"},
        {"output_tokens": True},
        {"output_tokens": float("nan")},
        {"output_tokens": 10**12},
        {"labels": {"app": {"name": "hrm"}}},
        {"capabilities": ["telepathy"]},
        {"labels": {str(i): "y" for i in range(100)}},
        {"capabilities": ["vision"] * 100},
        {"language": "e" * 36},
        {"tenant": "unknown field"},
    ],
)
def test_bad_hints_are_refused(hints: dict[str, object]) -> None:
    """Each is a validation error that names its field."""
    with pytest.raises(ValidationError) as error:
        Hints.model_validate(hints)
    assert error.value.errors()[0]["loc"][0] in hints


def test_records_are_frozen() -> None:
    """What was decided on cannot change afterwards."""
    with pytest.raises(ValidationError):
        Message(role="user", content="a").role = "tool"


def test_the_schema_says_exactly_one() -> None:
    """A client that generates requests from OpenAPI learns the rule."""
    branches = Query.model_json_schema()["oneOf"]
    assert [branch["required"] for branch in branches] == [["text"], ["messages"]]
