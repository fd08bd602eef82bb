"""Request bodies of decisions that were made elsewhere -> records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Base64Bytes, Field

from features.lexicon import TASK_INDEX
from policy import records
from policy.arms.arm import ArmId
from policy.arms.constraints import Concern
from policy.objective import Weights
from policy.records import Vector
from serving.routes.requests import Body, Count, DecisionId, PolicyName, Probability

Named = Annotated[str, Field(min_length=1, max_length=64)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Figure = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Float32s = Annotated[Base64Bytes, Field(max_length=65_536)]  # little-endian, in base64


def _task_type(task: str) -> str:
    if task not in TASK_INDEX:
        raise ValueError(f"must be one of {', '.join(TASK_INDEX)}")
    return task


class MadeDecision(Body):
    """A decision that a caller made with a policy's state, as /route would have stored it."""

    state: Named
    policy: PolicyName
    decision_id: DecisionId
    version: Named
    snapshot: Annotated[int, Field(strict=True, ge=0)]
    catalog: Named
    encoder: Named
    made_at_ms: Annotated[int, Field(strict=True, ge=0)]
    arm: ArmId
    propensity: Probability
    confidence: Probability | None = None
    arms: Annotated[tuple[ArmId, ...], Field(min_length=1, max_length=1000)]
    pmf: Annotated[list[Probability], Field(max_length=1000)]
    predicted: Annotated[
        list[tuple[Figure | None, Figure | None, Figure | None]], Field(max_length=1000)
    ]
    prompt_tokens: Count
    output_tokens: Count
    weights: tuple[Probability, Probability, Probability]
    x: Float32s
    query: str | None = None
    task: Annotated[str, AfterValidator(_task_type)] | None = None
    endpoint: str | None = Field(None, max_length=512)
    answered: Annotated[list[Probability], Field(max_length=1000)] | None = None
    unavailable: Annotated[tuple[tuple[ArmId, str], ...], Field(max_length=1000)] | None = None
    challenger: Named | None = None
    share: Share = 0.0
    challenger_pmf: Annotated[list[Probability], Field(max_length=1000)] | None = None
    challenger_encoder: Named | None = None
    challenger_x: Float32s | None = None
    gave_way: Annotated[tuple[Concern, ...], Field(max_length=4)] = ()

    def decision(self) -> records.Decision:
        """The record."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "state"}
        shadow, other_x = self.challenger_pmf, self.challenger_x
        answered = self.answered
        return records.Decision(
            **{
                **fields,
                "pmf": np.array(self.pmf),
                "predicted": _figures(self.predicted),
                "weights": Weights(*self.weights),
                "x": _context(self.x),
                "answered": None if answered is None else np.array(answered),
                "challenger_pmf": None if shadow is None else np.array(shadow),
                "challenger_x": None if other_x is None else _context(other_x),
            }
        )


class MadeBatch(Body):
    """Each decision is judged by itself: one that is wrong spoils no other."""

    decisions: list[Any] = Field(min_length=1)


def _figures(rows: Sequence[tuple[float | None, ...]]) -> Vector:
    return np.array(rows, dtype=np.float64)  # null becomes NaN


def _context(raw: bytes) -> records.Context:
    return np.frombuffer(raw[: len(raw) // 4 * 4], dtype="<f4")
