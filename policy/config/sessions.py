"""`[policies.NAME.sessions]`: how long the turns of a session stay with the arm of their draw."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from policy.config.gate import Seconds


class SessionsConfig(BaseModel):
    """It acts at once, and is no part of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redraw: Literal["never", "gain"] = "never"
    """Whether a turn may draw anew while the arm can still be called: where another one is expected
    to earn more, ..."""
    min_gain: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.05
    """... by this much reward at least, beside what the lost cache of the prompt costs."""
    idle_s: Seconds = 1_800
    """After so long without a turn a session begins anew."""
