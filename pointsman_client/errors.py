"""The one exception that a caller has to know, and what some may want to tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PointsmanError(Exception):
    """A problem that the service reported, or (`status` None) that no answer came at all."""

    def __init__(
        self,
        status: int | None,
        title: str,
        detail: str,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, title, detail, problem)  # all of them, so that it can be pickled
        self.status = status
        self.title = title
        self.detail = detail
        self.problem = dict(problem or {})

    def __str__(self) -> str:
        return f"{'' if self.status is None else f'{self.status} '}{self.title}: {self.detail}"


class Unauthorized(PointsmanError):
    """The service wants a key, or doesn't know this one (any more)."""


class Forbidden(PointsmanError):
    """The key lacks a scope: `problem["scope"]`, for `problem["policy"]` if that isn't None."""


class RateLimited(PointsmanError):
    """Too much at once, or in too short a time."""

    @property
    def retry_after_s(self) -> float | None:
        """How long to leave it alone, where the service says so."""
        given = self.problem.get("retry_after_s")
        return float(given) if isinstance(given, (int, float)) else None


class NotSent(PointsmanError):
    """What was given can't be written as JSON, so nothing went out."""
