"""The one exception that a caller has to know."""

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


class NotSent(PointsmanError):
    """What was given can't be written as JSON, so nothing went out."""
