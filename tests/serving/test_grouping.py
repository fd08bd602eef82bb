"""What is submitted together is done together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from serving.grouping import Turn


def test_what_comes_in_one_turn_is_one_go():
    """In its order, in parts of at most so many; what comes later is another go."""
    goes: list[list[int]] = []

    def doubled(items: Sequence[int]) -> list[int]:
        goes.append([*items])
        return [2 * item for item in items]

    async def run() -> None:
        turn = Turn(doubled, 3)
        assert await asyncio.gather(*map(turn.submit, range(5))) == [0, 2, 4, 6, 8]
        assert await turn.submit(7) == 14

    asyncio.run(run())
    assert goes == [[0, 1, 2], [3, 4], [7]]


def test_a_go_that_fails_fails_for_those_who_are_in_it():
    """And the next one goes on, also where a caller has given up."""

    def halved(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    async def run() -> None:
        turn = Turn(halved, 3)
        waiting = [turn.submit(item) for item in (1, 0)]
        waiting[0].cancel()
        with pytest.raises(ZeroDivisionError):
            await waiting[1]
        gone = turn.submit(3)
        gone.cancel()
        assert await turn.submit(2) == 0.5

    asyncio.run(run())
