"""The list of models.dev (its api.json) -> arms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pointsman.pricing.entries import ODD, Entry, entry, kind_by_name, price_tiers, sound

URL = "https://models.dev/api.json"
PER_MTOK = {
    "input": "usd_per_mtok_in",
    "output": "usd_per_mtok_out",
    "cache_read": "usd_per_mtok_cached_in",
    "cache_write": "usd_per_mtok_cache_write",
}
CAN = {"tool_call": "tools", "structured_output": "json", "reasoning": "reasoning"}
READS = {"image": "vision", "audio": "audio"}


def is_one(content: Any) -> bool:
    return isinstance(content, dict) and any(
        isinstance(provider, dict) and isinstance(provider.get("models"), dict)
        for provider in content.values()
    )


def read(providers: Mapping[str, Any]) -> Iterator[Entry]:
    """Each model."""
    for provider, about in providers.items():
        models = about.get("models", {}) if isinstance(about, dict) else None
        if not isinstance(models, dict):
            yield provider, ODD
            continue
        for model, said in models.items():
            read_one = partial(_entry, provider, model, said, about.get("doc", ""))
            yield sound(f"{provider}/{model}", read_one)


def _entry(provider: str, model: str, said: Mapping[str, Any], page: str) -> Entry:
    name = f"{provider}/{model}"
    kind = kind_by_name(model)
    modalities = said.get("modalities", {})
    if said.get("status") == "deprecated":
        return name, "deprecated"
    if kind is None or "text" not in modalities.get("output", ["text"]):
        return name, "neither chat nor embeddings"
    can = [name for flag, name in CAN.items() if said.get(flag) is True]
    can += [name for modality, name in READS.items() if modality in modalities.get("input", ())]
    cost = said.get("cost") or {}
    base = _per_mtok(cost)
    above = {
        int(tier["tier"]["size"]): _per_mtok(tier)
        for tier in cost.get("tiers", ())
        if tier.get("tier", {}).get("type") == "context"
    }
    if not above and "context_over_200k" in cost:
        above[200_000] = _per_mtok(cost["context_over_200k"])
    return entry(
        provider,
        model,
        kind,
        tuple(can),
        **base,
        price_tiers=price_tiers(base, above),
        prices_source=f"models.dev {page}".strip(),
        context_window_tokens=said.get("limit", {}).get("context") or None,
    )


def _per_mtok(said: Mapping[str, Any]) -> dict[str, float]:
    return {
        field: float(said[key])
        for key, field in PER_MTOK.items()
        if isinstance(said.get(key), int | float)
    }
