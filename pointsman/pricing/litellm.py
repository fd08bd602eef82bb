"""LiteLLM's list of models and prices (its JSON) -> arms."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pointsman.pricing.entries import Entry, entry, price_tiers, sound

URL = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
KINDS = {
    "chat": "chat",
    "responses": "chat",
    "completion": "chat",
    "embedding": "embeddings",
    "rerank": "rerank",
}
CAN = {
    "supports_vision": "vision",
    "supports_audio_input": "audio",
    "supports_function_calling": "tools",
    "supports_response_schema": "json",
    "supports_reasoning": "reasoning",
}
PER_TOKEN = {
    "input_cost_per_token": "usd_per_mtok_in",
    "output_cost_per_token": "usd_per_mtok_out",
    "cache_read_input_token_cost": "usd_per_mtok_cached_in",
    "cache_creation_input_token_cost": "usd_per_mtok_cache_write",
}
_ABOVE = re.compile(rf"({'|'.join(PER_TOKEN)})_above_(\d+)k_tokens")


def is_one(content: Any) -> bool:
    return isinstance(content, dict) and any(
        isinstance(model, dict) and "litellm_provider" in model for model in content.values()
    )


def read(models: Mapping[str, Any], on: datetime.date) -> Iterator[Entry]:
    """Each model; the prices of batches, of other service tiers and of quiet hours don't count."""
    for key, said in models.items():
        if not isinstance(said, dict) or key == "sample_spec" or "litellm_provider" not in said:
            continue
        provider = str(said["litellm_provider"])
        model = key.removeprefix(f"{provider}/")
        yield sound(f"{provider}/{model}", partial(_entry, provider, model, said, on))


def _entry(provider: str, model: str, said: Mapping[str, Any], on: datetime.date) -> Entry:
    kind = KINDS.get(said.get("mode", ""))
    retired = str(said.get("deprecation_date", "9999"))
    if kind is None or retired <= on.isoformat():
        why = f"mode {said.get('mode')}" if kind is None else "retired by then"
        return f"{provider}/{model}", why
    return entry(
        provider,
        model,
        kind,
        tuple(name for flag, name in CAN.items() if said.get(flag) is True),
        **_prices(said),
        usd_per_request=said.get("input_cost_per_request", said.get("input_cost_per_query")),
        prices_source=f"LiteLLM {said.get('source', '')}".strip(),
        context_window_tokens=_whole(said.get("max_input_tokens")),
    )


def _prices(said: Mapping[str, Any]) -> dict[str, Any]:
    above: dict[int, dict[str, float]] = {}
    steps = [step for step in said.get("tiered_pricing") or () if "range" in step]
    for step in steps:
        above[int(step["range"][0])] = _per_mtok(step)
    for key in said:
        if found := _ABOVE.fullmatch(key):
            above.setdefault(1000 * int(found[2]), {}).update(_per_mtok({found[1]: said[key]}))
    base = above.pop(0, {}) | _per_mtok(said)
    return {**base, "price_tiers": price_tiers(base, above)}


def _per_mtok(said: Mapping[str, Any]) -> dict[str, float]:
    """USD per million tokens, without what floating point adds to a product."""
    return {
        field: float(f"{1e6 * said[key]:.12g}")
        for key, field in PER_TOKEN.items()
        if isinstance(said.get(key), int | float)
    }


def _whole(tokens: Any) -> int | None:
    return int(tokens) if isinstance(tokens, int | float) and tokens > 0 else None
