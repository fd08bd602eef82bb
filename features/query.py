"""What the caller sends: a query and hints. Validates and bounds; reads no meaning into text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from features.capabilities import Capability

FOCUS_CHARS = 4_000  # how much of a query is looked at
TAIL_CHARS = 1_000  # of these, how many come from the end: instructions stand first or last
MAX_TOKENS = 100_000_000
LABEL_CHARS = 128  # of longer labels the beginning stands, and a digest of all

IMAGES = frozenset({"image_url", "image", "input_image"})  # types of a message's parts
SOUNDS = frozenset({"input_audio", "audio"})


def null_is(default: object, kind: Any) -> BeforeValidator:
    """For an optional field of this kind: null means absent."""
    return BeforeValidator(
        lambda value: default if value is None else value, json_schema_input_type=kind | None
    )


def _bounded(label: str) -> str:
    if len(label) <= LABEL_CHARS:
        return label
    raw = label.encode("utf-8", "surrogatepass")
    return label[: LABEL_CHARS - 33] + "#" + hashlib.blake2b(raw, digest_size=16).hexdigest()


def _label(value: Any) -> Any:
    """Numbers and booleans as their JSON text."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _without_nulls(labels: Any) -> Any:
    if isinstance(labels, dict) and None in labels.values():
        return {name: value for name, value in labels.items() if value is not None}
    return {} if labels is None else labels


def _can_be_written(value: Any) -> Any:
    """What is free in form may be anything but what no JSON writer takes back."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"is nested too deep or holds too large a number: {error}") from None
    return value


Name = Annotated[str, AfterValidator(_bounded)]
Label = Annotated[Name, BeforeValidator(_label, json_schema_input_type=str | int | float | bool)]
Labels = Annotated[
    dict[Name, Label],
    Field(max_length=32),
    BeforeValidator(
        _without_nulls, json_schema_input_type=dict[str, str | int | float | bool | None] | None
    ),
]
Capabilities = Annotated[
    tuple[Capability, ...],
    Field(max_length=32),
    null_is((), tuple[Capability, ...]),
]
Free = AfterValidator(_can_be_written)


def whole(value: Any) -> Any:
    """A whole number that is written as 5.0 is one: JSON knows no difference, and a column of
    counts with a gap in it holds floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Tokens = Annotated[int, BeforeValidator(whole), Field(strict=True, ge=0, le=MAX_TOKENS)]


class Frozen(BaseModel):
    """A record from outside: unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lenient(BaseModel):
    """A record in somebody else's shape: what we don't use of it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Part(Lenient):
    """A piece of a message: text, an image, a sound, or what says nothing to us. Nothing is ever
    fetched."""

    type: str
    text: str | None = None

    @model_validator(mode="after")
    def _text_has_text(self) -> Part:
        if self.type == "text" and self.text is None:
            raise ValueError("a part of type 'text' needs a text")
        return self


class Message(Lenient):
    """One chat message in the shape that OpenAI clients send.

    The shape is theirs: what else a history carries (name, tool_calls, ...) is passed over.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(max_length=1_000)] | None = None

    def text(self) -> str:
        """The message's words, parts joined by line breaks."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text or "" for part in self.content if part.type == "text")


def _exactly_one(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [
        {"required": ["text"], "properties": {"text": {"type": "string"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
    ]


class Query(Lenient):
    """What the caller wants answered: plain text, or chat messages.

    A chat completion's own body is a query: what it says of the arm that is needed is read, and
    what routing has no use for (`temperature`, `stream`, `user`, ...) is passed over.

    >>> Query(text="What is a pointsman?").prompt()
    'What is a pointsman?'
    """

    model_config = ConfigDict(json_schema_extra=_exactly_one)

    text: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None
    tools: Annotated[list[Any] | None, Free] = None
    tool_choice: Annotated[Any, Free] = None
    response_format: Annotated[dict[str, Any] | None, Free] = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Query:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a query has exactly one of text and messages")
        return self

    def prompt(self) -> str:
        """All of the query's text, in order, but for what was left out."""
        if self.messages is None:
            text = self.text or ""
        else:
            text = "\n".join(message.text() for message in self.messages)
        return _LEFT_OUT.sub("\n", text)

    def characters(self) -> int:
        """How long the query's text is, with what was left out of it."""
        if self.messages is None:
            return length(self.text or "")
        return sum(length(message.text()) for message in self.messages)

    def output_limit(self) -> int | None:
        """How many tokens the caller lets the answer have."""
        given = (self.max_completion_tokens, self.max_tokens)
        return next((limit for limit in given if limit is not None), None)

    def capabilities(self) -> set[str]:
        """What an arm must be able to do for a query of this shape."""
        needed = set()
        if self.tools and self.tool_choice != "none":
            needed.add("tools")
        if self.response_format and self.response_format.get("type") in (
            "json_object",
            "json_schema",
        ):
            needed.add("json")
        if self.reasoning_effort and self.reasoning_effort != "none":
            needed.add("reasoning")
        if self.images():
            needed.add("vision")
        if (self.modalities and "audio" in self.modalities) or self._count(SOUNDS):
            needed.add("audio")
        return needed

    def _count(self, types: frozenset[str]) -> int:
        """How many parts of all messages are of these types."""
        listed = (m.content for m in self.messages or () if isinstance(m.content, list))
        return sum(part.type in types for parts in listed for part in parts)

    def turns(self) -> int:
        """How many messages the conversation has; 1 for plain text."""
        return 1 if self.messages is None else len(self.messages)

    def images(self) -> int:
        return self._count(IMAGES)

    def focus(self) -> str:
        """The at most 4,000 characters that tell most about the query.

        Of a conversation: the newest user message, then the system's instructions, then the rest
        from new to old, so that a long history cannot push the question out.
        """
        if self.messages is None:
            return shorten(self.text or "")
        return _fill(_by_weight(self.messages))


def shorten(text: str) -> str:
    """Keep the beginning and the end of a text, 4,000 characters together."""
    if len(text) <= FOCUS_CHARS:
        return text
    head = FOCUS_CHARS - TAIL_CHARS - 1
    return f"{text[:head]}\n{text[-TAIL_CHARS:]}"


_LEFT_OUT = re.compile("\ufdd0([0-9]{1,9}) [0-9a-f]*\ufdd1")  # noncharacters: texts have none


def without_middle(head: str, dropped: int, digest: str, tail: str) -> str:
    """A text of which `dropped` characters were left out, told apart by their digest.

    Where `head` and `tail` are as long as `shorten` wants them, the focus is that of the whole.
    """
    return f"{head}\ufdd0{dropped} {digest}\ufdd1{tail}"


def length(text: str) -> int:
    """How many characters a text has, with those that were left out of it."""
    if len(text) <= FOCUS_CHARS:
        return len(text)
    left_out = _LEFT_OUT.finditer(text)
    return len(text) + sum(int(found[1]) - len(found[0]) for found in left_out)


def _by_weight(messages: list[Message]) -> Iterator[Message]:
    asked = max((i for i, m in enumerate(messages) if m.role == "user"), default=len(messages) - 1)
    yield messages[asked]
    instructions = {"system", "developer"}
    yield from (m for i, m in enumerate(messages) if m.role in instructions and i != asked)
    others = [m for i, m in enumerate(messages) if m.role not in instructions and i != asked]
    yield from reversed(others)


def _fill(messages: Iterator[Message]) -> str:
    pieces: list[str] = []
    room = FOCUS_CHARS
    for message in messages:
        pieces.append(shorten(message.text())[:room])
        room -= len(pieces[-1]) + 1
        if room <= 0:
            break
    return "\n".join(pieces)


class Hints(Frozen):
    """What the caller knows of its own query. Any label is welcome; unknown ones are hashed."""

    task_type: Label | None = None
    context_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    language: Annotated[str, Field(max_length=35)] | None = None
    capabilities: Capabilities = ()
    labels: Labels = Field(default_factory=dict)
