"""One arm: what it is, what it can do and what it costs. Pure data."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from features.capabilities import Capability
from features.lexicon import TASK_TYPES
from policy.arms.endpoints import Endpoint, Limits

ArmId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Price = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values as they are; ValueError when one is there twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"must not repeat itself, got {value!r} twice")
        seen.add(value)
    return values


def by_task_type(values: Mapping[str, float]) -> Mapping[str, float]:
    """The values as they are; ValueError when a key is no task type."""
    for task_type in values:
        if task_type not in TASK_TYPES:
            known = ", ".join(TASK_TYPES)
            raise ValueError(f"unknown task type {task_type!r}, known are {known}")
    return values


def by_length(tiers: tuple[PriceTier, ...]) -> tuple[PriceTier, ...]:
    """The tiers as they are; ValueError unless they come by rising length."""
    lengths = [tier.above_tokens for tier in tiers]
    if lengths != sorted(set(lengths)):
        raise ValueError(f"must be by rising above_tokens, got {lengths}")
    return tiers


class UnknownPrice(LookupError):
    """A call used something that its arm has no price for: its cost can't be known."""


class PriceTier(BaseModel):
    """What all tokens of a call cost whose prompt is longer than `above_tokens`, cached or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    above_tokens: Annotated[int, Field(strict=True, gt=0, le=10**9)]
    usd_per_mtok_in: Price
    usd_per_mtok_out: Price
    usd_per_mtok_cached_in: Price | None = None
    usd_per_mtok_cache_write: Price | None = None


class PriceChange(BaseModel):
    """All prices of an arm from a day (UTC) on, as they are announced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: Annotated[datetime.date, Field(strict=True)]
    usd_per_mtok_in: Price
    usd_per_mtok_out: Price
    usd_per_mtok_cached_in: Price | None = None
    usd_per_mtok_cache_write: Price | None = None
    usd_per_request: Price = 0.0
    price_tiers: Annotated[tuple[PriceTier, ...], Field(max_length=16)] = ()

    @field_validator("price_tiers")
    @classmethod
    def _rising(cls, tiers: tuple[PriceTier, ...]) -> tuple[PriceTier, ...]:
        return by_length(tiers)


class Arm(Limits):
    """One model choice. Prices are USD per million tokens, as on `prices_checked` if told."""

    id: ArmId
    provider: Name
    model: Name
    context_window_tokens: Annotated[int, Field(strict=True, gt=0, le=10**9)] | None = None
    """None where nobody has said: then no query is too long for it."""
    maker: Name | None = None
    """Who trained the model; `provider` is who runs it."""
    parameters_b: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """Its size: billions of parameters."""
    usd_per_mtok_in: Price
    usd_per_mtok_out: Price
    usd_per_mtok_cached_in: Price | None = None
    """Of prompt tokens that the provider had in its cache; None is unknown, and never 0."""
    usd_per_mtok_cache_write: Price | None = None
    """Of prompt tokens that the provider puts into its cache; None is unknown, and never 0."""
    usd_per_request: Price = 0.0
    """What a call costs beside its tokens; most cost nothing."""
    price_tiers: Annotated[tuple[PriceTier, ...], Field(max_length=16)] = ()
    """Other prices for long prompts, by rising length."""
    prices_checked: Annotated[datetime.date, Field(strict=True)] | None = None
    price_changes: Annotated[tuple[PriceChange, ...], Field(max_length=16)] = ()
    """Prices to come, by rising day: see `at`."""
    prices_source: Source | None = None
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1, max_length=64)] = ("chat",)
    priors: Mapping[str, Share] = {}
    """Expected quality per task type, where somebody knows it."""
    tokens_per_second: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=256)] = ()
    """The instances that serve this arm: URLs or names, or tables with limits and weights."""
    enabled: Annotated[bool, Field(strict=True)] = True

    @field_validator("capabilities")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(values)

    @field_validator("endpoints", mode="before")
    @classmethod
    def _urls(cls, values: Any) -> Any:
        if not isinstance(values, list | tuple):
            return values
        return tuple({"url": value} if isinstance(value, str) else value for value in values)

    @field_validator("endpoints")
    @classmethod
    def _distinct_urls(cls, values: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        distinct(tuple(endpoint.url for endpoint in values))
        return values

    @field_validator("priors")
    @classmethod
    def _of_task_types(cls, priors: Mapping[str, float]) -> Mapping[str, float]:
        return by_task_type(priors)

    @field_validator("price_tiers")
    @classmethod
    def _rising(cls, tiers: tuple[PriceTier, ...]) -> tuple[PriceTier, ...]:
        return by_length(tiers)

    @field_validator("price_changes")
    @classmethod
    def _in_time(cls, changes: tuple[PriceChange, ...]) -> tuple[PriceChange, ...]:
        days = [change.on for change in changes]
        if days != sorted(set(days)):
            raise ValueError(f"must be by rising day, got {', '.join(map(str, days))}")
        return changes

    def at(self, day: datetime.date) -> Self:
        """This arm with the prices of a day; the changes that are to come are left."""
        begun = [change for change in self.price_changes if change.on <= day]
        if not begun:
            return self
        prices = {name: getattr(begun[-1], name) for name in PriceChange.model_fields}
        del prices["on"]
        return self.model_copy(update={**prices, "price_changes": self.price_changes[len(begun) :]})

    def _prices(self, prompt_tokens: float) -> Arm | PriceTier:
        """Where the prices of a call stand whose prompt has so many tokens."""
        above = (tier for tier in reversed(self.price_tiers) if prompt_tokens > tier.above_tokens)
        return next(above, self)

    def cost_usd(
        self,
        input_tokens: float,
        output_tokens: float,
        cached_in: float = 0,
        cache_write: float = 0,
    ) -> float:
        """What a call cost at these prices; `input_tokens` are those that no cache had.

        Raises
        ------
        UnknownPrice
            If the provider's cache was used, and the arm doesn't say what that costs.

        >>> arm = Arm(id="a", provider="p", model="m", usd_per_mtok_in=0.5, usd_per_mtok_out=1.5)
        >>> arm.cost_usd(input_tokens=1000, output_tokens=200)
        0.0008
        """
        prices = self._prices(input_tokens + cached_in + cache_write)
        usd = input_tokens * prices.usd_per_mtok_in + output_tokens * prices.usd_per_mtok_out
        for name, tokens in (
            ("usd_per_mtok_cached_in", cached_in),
            ("usd_per_mtok_cache_write", cache_write),
        ):
            if tokens:
                price = getattr(prices, name)
                if price is None:
                    raise UnknownPrice(f"arm {self.id!r} has no {name} for {tokens} tokens")
                usd += tokens * price
        return usd / 1e6 + self.usd_per_request
