"""Rewards as callers send them at their worst: in pieces and in any order, twice at a time, with
another value at the same time, and late."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.processes.embedded import running_url
from tests.faults import places
from tests.faults.places import OFTEN
from tests.faults.traffic import Traffic
from tests.faults.verifying import verify
from tests.servers import CONFIG, running_up


class Unruly(Traffic):
    """Reports each component three times at once, once with another value: one of the two values
    is accepted, and the other is a conflict. A tenth of the reports come after the window."""

    window_s = 1.0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reporting = ThreadPoolExecutor(3 * self.clients)
        self.said: Counter[str] = Counter()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._reporting.shutdown()

    def _report(
        self,
        http: httpx.Client,
        about: dict[str, str],
        outcome: dict[str, float],
        rng: random.Random,
    ) -> None:
        if rng.random() < 0.1:
            time.sleep(self.window_s + 0.2)
        for name, value in rng.sample(sorted(outcome.items()), len(outcome)):
            sent = [value, value, value / 2]
            rng.shuffle(sent)
            bodies = [{**about, name: one} for one in sent]
            answers = list(self._reporting.map(self._post_any, [http] * 3, bodies))
            said = [what for what, _ in answers]
            stood = {one for one, what in zip(sent, said, strict=True) if what != "conflict"}
            assert len(stood) == 1, (said, sent)
            late = next(late for what, late in answers if what == "accepted")
            self.said.update(said)
            self.ledger.reports(about["decision_id"], {name: stood.pop()}, late=late)

    def _post_any(self, http: httpx.Client, body: dict[str, Any]) -> tuple[str, bool]:
        """accepted, unchanged or conflict; and whether it was late."""
        answer = self._answer(http, "/reward", body, {200, 409})
        if answer.status_code == 409:
            assert answer.json()["type"] == "/problems/conflict"
            return "conflict", False
        told = answer.json()
        return ("accepted" if told["accepted"] else "unchanged"), told["late"]


@pytest.mark.faults
def test_rewards_at_their_worst(tmp_path: Path):
    """What was accepted is learned once, and is in the log once unless it came late; nothing else
    changes anything. Also where the learner and the archiver die meanwhile."""
    config = f"{CONFIG}reward_window_s = {Unruly.window_s:.0f}\n"
    with running_up(tmp_path, config, POINTSMAN_FSYNC="always", **OFTEN) as (process, http):
        with Unruly(str(http.base_url), seed=5) as traffic:
            for victim in ("learner", "archiver", "learner"):
                traffic.reach(traffic.ledger.acknowledged + 400)
                places.kill(victim, process.pid)
            traffic.reach(traffic.ledger.acknowledged + 400)
        log = str(tmp_path / "data" / "log")
        verify(traffic.ledger, running_url(tmp_path / "data"), log)
    assert traffic.said.keys() == {"accepted", "unchanged", "conflict"}
    assert traffic.ledger.late
