"""One model of a price list as an arm, or as the reason why it is none. Shared by all lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from pointsman.pricing.traits import maker, parameters_b
from policy.arms.arm import Arm

Entry = tuple[str, Arm | str]
"""PROVIDER/MODEL, and the arm or why there is none."""
ODD = "not written as such lists are"

_NO_CHAT = re.compile(
    r"\b(tts|whisper|transcribe|image|imagen|dall|moderation|ocr|realtime|live|speech|veo|lyria"
    r"|sora|guard|safeguard)\b"
)


def entry(provider: str, model: str, kind: str, can: tuple[str, ...] = (), **said: Any) -> Entry:
    """The arm PROVIDER/MODEL of a kind (`chat`, `embeddings`, `rerank`), which `can` do more; of
    its other fields None is the same as nothing said. What it writes costs nothing where it writes
    nothing; its maker and size are what its name tells."""
    name = f"{provider}/{model}"
    said |= {"maker": maker(model), "parameters_b": parameters_b(model)}
    known = {field: value for field, value in said.items() if value is not None}
    if kind != "chat":
        known.setdefault("usd_per_mtok_out", 0.0)
    if not {"usd_per_mtok_in", "usd_per_mtok_out"} <= known.keys():
        return name, "no price per token"
    try:
        known |= {"id": re.sub(r"[^A-Za-z0-9._:/-]+", "-", name), "capabilities": (kind, *can)}
        return name, Arm(provider=provider, model=model, **known)
    except ValidationError as error:
        return name, f"unusable {error.errors()[0]['loc'][0]}"


def sound(name: str, read: Callable[[], Entry]) -> Entry:
    """The entry, or that what is said of `name` isn't written as such lists are."""
    try:
        return read()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return name, ODD


def kind_by_name(model: str) -> str | None:
    """`embeddings`, `rerank` or `chat`, for lists that don't say; None for what is none of them,
    such as speech, pictures or moderation.

    >>> kind_by_name("text-embedding-3-small"), kind_by_name("gpt-image-1")
    ('embeddings', None)
    """
    name = model.lower().replace("_", "-")
    if "embed" in name:
        return "embeddings"
    if "rerank" in name:
        return "rerank"
    return None if _NO_CHAT.search(name) else "chat"


def price_tiers(
    base: Mapping[str, float], above: Mapping[int, Mapping[str, float]]
) -> tuple[Mapping[str, float], ...]:
    """An arm's tiers, from the prices that change above so many tokens: others stay as they were.

    >>> price_tiers({"usd_per_mtok_in": 1, "usd_per_mtok_out": 2}, {9: {"usd_per_mtok_in": 3}})
    ({'above_tokens': 9, 'usd_per_mtok_in': 3, 'usd_per_mtok_out': 2},)
    """
    found: list[Mapping[str, float]] = []
    prices = dict(base)
    for tokens in sorted(above):
        prices |= above[tokens]
        found.append({"above_tokens": tokens, **prices})
    return tuple(found)
