"""The prices that the package `genai-prices` carries -> arms. It is optional, so loaded late."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module, metadata
from typing import Any

from pointsman.pricing.entries import Entry, entry, kind_by_name, price_tiers

PER_MTOK = {
    "input_mtok": "usd_per_mtok_in",
    "output_mtok": "usd_per_mtok_out",
    "cache_read_mtok": "usd_per_mtok_cached_in",
    "cache_write_mtok": "usd_per_mtok_cache_write",
}


def installed() -> tuple[Sequence[Any], str]:
    """The package's providers, and its version; RuntimeError where it isn't there."""
    try:
        data = import_module("genai_prices.data")
    except ImportError:
        raise RuntimeError(
            "genai-prices isn't installed: `pip install genai-prices`, or name a file or a URL"
        ) from None
    return data.providers, metadata.version("genai-prices")


def last_change(providers: Iterable[Any], on: datetime.date) -> datetime.date:
    """The last day up to `on` from which a price of the list holds: it is no older than that.
    `on` itself where none is known from before."""
    days = [day for p in providers for model in p.models for day in _days(model) if day <= on]
    return max(days, default=on)


def read(providers: Iterable[Any], on: datetime.date, source: str) -> Iterator[Entry]:
    """Each model at the prices of a day.

    Of prices that differ by the hour the dearest count; those of batches and of other service tiers
    don't. What a model is the list doesn't say, so its name does.
    """
    for provider in providers:
        page = next(iter(provider.pricing_urls or ()), "")
        for model in provider.models:
            kind = kind_by_name(model.id)
            if model.deprecated or kind is None:
                why = "deprecated" if model.deprecated else "neither chat nor embeddings, by name"
                yield f"{provider.id}/{model.id}", why
                continue
            yield entry(
                provider.id,
                model.id,
                kind,
                **_prices(_in_force(model.prices, on)),
                price_changes=_changes(model, kind, on),
                prices_source=f"{source} {page}".strip(),
                context_window_tokens=model.context_window or None,
            )


def _days(model: Any) -> list[datetime.date]:
    """From which days prices of a model hold, where that is told."""
    prices = model.prices if isinstance(model.prices, list) else []
    days = (getattr(price.constraint, "start_date", None) for price in prices)
    return [day for day in days if day is not None]


def _changes(model: Any, kind: str, on: datetime.date) -> tuple[dict[str, Any], ...] | None:
    """The prices to come, of those models whose prices say all that a call costs."""
    writes = {} if kind == "chat" else {"usd_per_mtok_out": 0.0}
    days = sorted({day for day in _days(model) if day > on})
    changes = tuple({"on": d, **writes, **_prices(_in_force(model.prices, d))} for d in days)
    whole = all({"usd_per_mtok_in", "usd_per_mtok_out"} <= change.keys() for change in changes)
    return changes if whole else None


def _in_force(prices: Any, on: datetime.date) -> Any:
    """The prices of a day: the last that have begun, or the dearest of its hours."""
    if not isinstance(prices, list):
        return prices
    found = []
    for conditional in reversed(prices):
        constraint = conditional.constraint
        by_the_hour = hasattr(constraint, "start_time")
        if constraint is None or by_the_hour or constraint.start_date <= on:
            found.append(conditional.prices)
            if not by_the_hour:
                break
    return max(found or [prices[0].prices], key=_blended)


def _blended(prices: Any) -> float:
    return sum(float(_base(getattr(prices, key) or 0)) for key in ("input_mtok", "output_mtok"))


def _base(price: Any) -> Any:
    return getattr(price, "base", price)


def _prices(prices: Any) -> dict[str, Any]:
    """The price fields of an arm."""
    base: dict[str, float] = {}
    above: dict[int, dict[str, float]] = {}
    for key, field in PER_MTOK.items():
        price = getattr(prices, key)
        if price is not None:
            base[field] = float(_base(price))
            for tier in getattr(price, "tiers", ()):
                above.setdefault(tier.start, {})[field] = float(tier.price)
    per_thousand = prices.requests_kcount
    request = {} if per_thousand is None else {"usd_per_request": float(per_thousand) / 1000}
    return {**base, **request, "price_tiers": price_tiers(base, above)}
