"""A `usage` block as providers send it -> what is charged. Knows their words, no prices.

Providers count alike and name differently. For OpenAI and Gemini the prompt's tokens include those
that a cache had; for Anthropic these come on top. For OpenAI and Anthropic the answer's tokens
include those of reasoning; for Gemini these come on top. What isn't charged by the token is passed
over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_TOKENS = 100_000_000
_KNOWN = (
    "prompt_tokens (OpenAI, chat completions)",
    "input_tokens and output_tokens (OpenAI, responses; Anthropic)",
    "promptTokenCount (Gemini)",
)


class Tokens(NamedTuple):
    """What a call read and wrote, each token once."""

    input: int
    """That no cache had."""
    output: int
    """With what was thought."""
    cached_in: int = 0
    cache_write: int = 0


def tokens(usage: Any) -> Tokens:
    """The tokens that a usage block tells; ValueError where it is none that is known.

    >>> tokens({"prompt_tokens": 50, "completion_tokens": 9,
    ...     "prompt_tokens_details": {"cached_tokens": 40}})
    Tokens(input=10, output=9, cached_in=40, cache_write=0)
    >>> tokens({"input_tokens": 10, "output_tokens": 9, "cache_read_input_tokens": 40})
    Tokens(input=10, output=9, cached_in=40, cache_write=0)
    """
    if not isinstance(usage, Mapping):
        raise ValueError("should be an object")
    if _has(usage, "prompt_tokens"):
        return _prompt_and_completion(usage)
    if _has(usage, "promptTokenCount", "prompt_token_count"):
        return _prompt_and_candidates(usage)
    if _has(usage, "input_tokens") and _has(usage, "output_tokens"):
        return _input_and_output(usage)
    raise ValueError(f"has the tokens of no known provider: {', '.join(_KNOWN)}")


def _prompt_and_completion(usage: Mapping[str, Any]) -> Tokens:
    """OpenAI's chat completions and embeddings, and those who speak like it."""
    details = _inner(usage, "prompt_tokens_details")
    cached = _count(details, "cached_tokens") or _count(
        usage, "prompt_cache_hit_tokens", "cache_read_input_tokens"
    )
    written = _count(details, "cache_write_tokens", "cache_creation_tokens") or _count(
        usage, "cache_creation_input_tokens"
    )
    fresh = _rest("prompt_tokens", _count(usage, "prompt_tokens"), cached + written)
    return Tokens(fresh, _count(usage, "completion_tokens"), cached, written)


def _input_and_output(usage: Mapping[str, Any]) -> Tokens:
    """OpenAI's responses, which count cached tokens within, and Anthropic, who does beside."""
    within = _count(_inner(usage, "input_tokens_details"), "cached_tokens")
    return Tokens(
        _rest("input_tokens", _count(usage, "input_tokens"), within),
        _count(usage, "output_tokens"),
        within + _count(usage, "cache_read_input_tokens"),
        _count(usage, "cache_creation_input_tokens"),
    )


def _prompt_and_candidates(usage: Mapping[str, Any]) -> Tokens:
    """Gemini, in either spelling."""
    cached = _count(usage, "cachedContentTokenCount", "cached_content_token_count")
    prompt = _count(usage, "promptTokenCount", "prompt_token_count")
    by_tools = _count(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count")
    written = _count(usage, "candidatesTokenCount", "candidates_token_count")
    thought = _count(usage, "thoughtsTokenCount", "thoughts_token_count")
    return Tokens(_rest("promptTokenCount", prompt, cached) + by_tools, written + thought, cached)


def _has(usage: Mapping[str, Any], *names: str) -> bool:
    return any(usage.get(name) is not None for name in names)


def _inner(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, Mapping):
        raise ValueError(f"{name} should be an object")
    return details


def _count(usage: Mapping[str, Any], *names: str) -> int:
    """The first of these that is there, else 0."""
    for name in names:
        value = usage.get(name)
        if value is None:
            continue
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not 0 <= value <= MAX_TOKENS:
            raise ValueError(f"{name} should be a whole number from 0 to {MAX_TOKENS}")
        return int(value)
    return 0


def _rest(name: str, total: int, cached: int) -> int:
    if cached > total:
        raise ValueError(f"{name} ({total}) should include the {cached} tokens that a cache had")
    return total - cached
