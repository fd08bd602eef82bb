"""What a check has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "fault"]


class Finding(NamedTuple):
    """`what` is, in one line, and what to `do` about it; '' where nothing is to be done."""

    check: str
    level: Level
    what: str
    do: str = ""


Told = tuple[Level, str, str]


def named(check: str, told: Sequence[Told], fine: str) -> list[Finding]:
    """What there is to tell of one check, or that all is `fine`."""
    return [Finding(check, *one) for one in told] or [Finding(check, "ok", fine)]


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names, and how many more.

    >>> shortened(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


Check = Callable[[], list[Finding]]
