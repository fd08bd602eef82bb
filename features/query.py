"""What the caller sends: a query and hints. Validates and bounds; reads no meaning into text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FOCUS_CHARS = 4_000  # how much of a query is looked at
TAIL_CHARS = 1_000  # of these, how many come from the end: instructions stand first or last
MAX_TEXT_CHARS = 4_000_000
MAX_TOKENS = 100_000_000

Label = Annotated[str, Field(max_length=64)]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Tokens = Annotated[int, Field(strict=True, ge=0, le=MAX_TOKENS)]


class Frozen(BaseModel):
    """A record from outside: unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lenient(BaseModel):
    """A record in somebody else's shape: what we don't use of it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TextPart(Lenient):
    """A piece of text within a message."""

    type: Literal["text"]
    text: Text


class ImageUrl(Lenient):
    """Where an image is; a `data:` URL holds it. It is never fetched."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Lenient):
    """An image within a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class OtherPart(Lenient):
    """A part that says nothing to us: a refusal, a sound, a file."""

    type: Label

    @field_validator("type")
    @classmethod
    def _is_another(cls, kind: str) -> str:
        if kind in ("text", "image_url"):
            raise ValueError(f"a part of type {kind!r} has another shape")
        return kind


Part = TextPart | ImagePart | OtherPart


class Message(Lenient):
    """One chat message in the shape that OpenAI clients send.

    The shape is theirs: what else a history carries (name, tool_calls, ...) is passed over.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[Part], Field(max_length=1_000)] | None = None

    def text(self) -> str:
        """The message's words, parts joined by line breaks."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    def images(self) -> int:
        if self.content is None or isinstance(self.content, str):
            return 0
        return sum(isinstance(part, ImagePart) for part in self.content)


def _exactly_one(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [
        {"required": ["text"], "properties": {"text": {"type": "string"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
    ]


class Query(Frozen):
    """What the caller wants answered: plain text, or chat messages.

    >>> Query(text="What is a pointsman?").prompt()
    'What is a pointsman?'
    """

    model_config = ConfigDict(json_schema_extra=_exactly_one)

    text: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Query:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a query has exactly one of text and messages")
        return self

    def prompt(self) -> str:
        """All of the query's text, in order."""
        if self.messages is None:
            return self.text or ""
        return "\n".join(message.text() for message in self.messages)

    def characters(self) -> int:
        """How long the query's text is."""
        if self.messages is None:
            return len(self.text or "")
        return sum(len(message.text()) for message in self.messages)

    def turns(self) -> int:
        """How many messages the conversation has; 1 for plain text."""
        return 1 if self.messages is None else len(self.messages)

    def images(self) -> int:
        return sum(message.images() for message in self.messages or ())

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
    capabilities: Annotated[tuple[Label, ...], Field(max_length=32)] = ()
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = Field(default_factory=dict)
