"""What waits to be told to the service: decisions, and the rewards of those it knows."""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from pointsman_client.answers import Logged, Receipt
from pointsman_client.client import Client
from pointsman_client.errors import PointsmanError, RateLimited
from pointsman_client.local.asking import Decision
from pointsman_client.wire import A, Request, results
from policy.records import Decision as Record
from policy.records import to_json

log = logging.getLogger("pointsman_client")

BATCH = 128  # at most so many in one request, ...
BATCH_BYTES = 262_144  # ... and no further one once it is as long as this

Item = TypeVar("Item")


class Backlog(NamedTuple):
    """What waits for an acknowledgement, and how many got none and never will."""

    decisions: int
    rewards: int
    lost_decisions: int
    lost_rewards: int


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A decision, the name of the state it was made with, and the caller's answer."""

    record: Record
    state: str
    answer: Decision

    def to_json(self) -> bytes:
        x, other = self.record.x, self.record.challenger_x
        parts = [to_json(self.record)[:-1], b'"state":"%b"' % self.state.encode()]
        parts += [b'"x":"%b"' % b64encode(x.tobytes())]
        parts += [] if other is None else [b'"challenger_x":"%b"' % b64encode(other.tobytes())]
        return b",".join(parts) + b"}"


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A reward, as it is sent."""

    decision_id: str
    body: bytes


class Outbox:
    """Holds at most `bound` decisions and as many rewards. One thread sends, any may add."""

    def __init__(self, client: Client, bound: int) -> None:
        self._client = client
        self._bound = bound
        self._changed = threading.Condition()
        self._decisions: dict[str, Made] = {}
        self._rewards: list[Report] = []
        self._lost_decisions = self._lost_rewards = 0

    def backlog(self) -> Backlog:
        with self._changed:
            return Backlog(
                len(self._decisions),
                len(self._rewards),
                self._lost_decisions,
                self._lost_rewards,
            )

    def waits(self, decision_id: str) -> bool:
        """Whether a decision of this id isn't acknowledged yet."""
        return decision_id in self._decisions

    def add(self, made: Made) -> None:
        """Keep a decision until it is acknowledged; beyond the bound it is lost, and says so."""
        with self._changed:
            if len(self._decisions) < self._bound:
                self._decisions[made.record.decision_id] = made
                return
        self._lose(made, f"{self._bound} decisions wait to be acknowledged already")

    def report(self, report: Report) -> bool:
        """Keep a reward until it is acknowledged; false, and lost, beyond the bound."""
        with self._changed:
            if len(self._rewards) < self._bound:
                self._rewards.append(report)
                return True
            self._lost_rewards += 1
        log.warning("reward of decision %s lost: %d wait", report.decision_id, self._bound)
        return False

    def emptied(self, timeout_s: float) -> bool:
        """Wait until nothing waits; false when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._decisions or self._rewards), timeout_s)

    def send(self) -> None:
        """Tell the service all that waits, each reward after its decision.

        Raises
        ------
        PointsmanError
            If the service can't be reached, or can't log now: what isn't acknowledged stays.
        """
        with self._changed:
            decisions = list(self._decisions.values())
        _in_batches(decisions, Made.to_json, self._send_decisions)
        with self._changed:
            rewards = [r for r in self._rewards if r.decision_id not in self._decisions]
        _in_batches(rewards, lambda report: report.body, self._send_rewards)

    def _send_decisions(self, made: list[Made], bodies: list[bytes]) -> None:
        answers = self._post("/decisions", "decisions", bodies, Logged)
        for one, answer in zip(made, answers, strict=True):
            if _for_now(answer):
                continue
            if isinstance(answer, PointsmanError):
                self._lose(one, str(answer))
            else:
                one.answer.logged = True
            with self._changed:
                del self._decisions[one.record.decision_id]
                self._changed.notify_all()
        _raise_first(answers)

    def _send_rewards(self, reports: list[Report], bodies: list[bytes]) -> None:
        answers = self._post("/reward/batch", "rewards", bodies, Receipt)
        settled, refused = set(), 0
        for report, answer in zip(reports, answers, strict=True):
            if _for_now(answer):
                continue
            settled.add(report)
            if isinstance(answer, PointsmanError):
                refused += 1
                log.warning("reward of decision %s refused: %s", report.decision_id, answer)
        with self._changed:
            self._lost_rewards += refused
            self._rewards = [report for report in self._rewards if report not in settled]
            self._changed.notify_all()
        _raise_first(answers)

    def _post(
        self, path: str, name: str, bodies: Sequence[bytes], model: type[A]
    ) -> list[A | PointsmanError]:
        body = b'{"%b":[%b]}' % (name.encode(), b",".join(bodies))
        read = partial(results, n=len(bodies), model=model)
        try:
            return self._client._send(Request("POST", path, read, body))
        except PointsmanError as error:
            if error.status != 413:
                raise
            if len(bodies) == 1:
                return [error]
        half = len(bodies) // 2
        parts = (bodies[:half], bodies[half:])
        return [answer for part in parts for answer in self._post(path, name, part, model)]

    def _lose(self, made: Made, why: str) -> None:
        made.answer.notes += (f"not logged: {why}",)
        with self._changed:
            self._lost_decisions += 1
        log.warning("decision %s not logged: %s", made.record.decision_id, why)


def _for_now(answer: object) -> bool:
    """Whether this problem passes: the same item may be acknowledged later."""
    if isinstance(answer, RateLimited):
        return True
    return isinstance(answer, PointsmanError) and (answer.status or 500) >= 500


def _raise_first(answers: Sequence[object]) -> None:
    for answer in answers:
        if isinstance(answer, PointsmanError) and _for_now(answer):
            raise answer


def _in_batches(
    items: Sequence[Item],
    encode: Callable[[Item], bytes],
    send: Callable[[list[Item], list[bytes]], None],
) -> None:
    batch: list[Item] = []
    bodies: list[bytes] = []
    size = 0
    for item in items:
        batch.append(item)
        bodies.append(encode(item))
        size += len(bodies[-1])
        if len(batch) == BATCH or size >= BATCH_BYTES:
            send(batch, bodies)
            batch, bodies, size = [], [], 0
    if batch:
        send(batch, bodies)
