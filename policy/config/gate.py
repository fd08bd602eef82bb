"""What a policy asks of the gate that its versions pass."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from policy.arms.constraints import Chance

Seconds = Annotated[int, Field(strict=True, gt=0, le=10**9)]
Margin = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class GateConfig(BaseModel):
    """What the gate asks of this policy's versions; what isn't said is as the gate has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_age_s: Seconds = 604_800
    """The most that the newest judged row's age may be, for the gate and for a promotion."""
    alpha: Chance | None = None
    guardrail_alpha: Chance | None = None
    quality_margin: Margin | None = None
    latency_margin: Margin | None = None
    cost_margin: Margin | None = None
    error_margin: Margin | None = None
    task_margin: Margin | None = None

    def settings(self) -> dict[str, float]:
        """What was said, by the gate's own names."""
        said = self.model_dump(exclude_none=True, exclude={"max_age_s"})
        return said | {"max_age_ms": self.max_age_s * 1_000}
