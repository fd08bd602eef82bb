"""`[policies.NAME.plans]`: which plans a policy may choose, and within which bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from policy.plans.plan import DRAWN, Kind

PREDICTING = ("linear", "nearest", "vw")
"""Models that expect something of arms."""

Threshold = Annotated[float, Field(strict=True, gt=0, lt=1)]


class PlansConfig(BaseModel):
    """What a request may ask for with `plans`. It acts at once, and is no part of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Kind, ...] = ("fallback",)
    """Hedges, races and cascades cost more than one call: so they are chosen on purpose."""
    width: Annotated[int, Field(strict=True, ge=2, le=8)] = 3
    """The most arms that a plan asks, those that follow on an error among them."""
    max_cost_ratio: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] | None = None
    """What a plan may be expected to cost, over what the arm of the highest expected reward is."""
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1, max_length=8)] = (0.7,)
    """Judged qualities below which a cascade goes on."""

    @field_validator("kinds", "thresholds")
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"must not repeat itself, got {value!r} twice")
        return values

    def refused(self, kinds: Iterable[Kind]) -> list[str]:
        """What of a request's plans this policy doesn't allow, a sentence each."""
        out = [kind for kind in dict.fromkeys(kinds) if kind not in self.kinds]
        return [f"plans: this policy allows no {kind}" for kind in out]

    def check(self, model: str, incumbent: str | None) -> None:
        """ValueError where a policy of this model, with this incumbent, can't draw such plans."""
        drawn = [kind for kind in self.kinds if kind in DRAWN]
        if drawn and model not in PREDICTING:
            raise ValueError(
                f"plans.kinds: {drawn[0]!r} is chosen by what is expected of arms, and model "
                f"{model!r} expects nothing: it is for {', '.join(map(repr, PREDICTING))}"
            )
        if drawn and incumbent is not None:
            raise ValueError(
                f"plans.kinds: {drawn[0]!r} can't be drawn beside an incumbent, whose loss it "
                "would leave without a bound"
            )
