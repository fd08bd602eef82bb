"""The decider: answers at once, and tells the service in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from pointsman_client import wire
from pointsman_client.call import Call
from pointsman_client.client import DEFAULT_URL, Client
from pointsman_client.encoding import encode
from pointsman_client.errors import PointsmanError
from pointsman_client.local.asking import Decision, answer_of, endpoint_of, no_arm, request_of
from pointsman_client.local.following import Follower
from pointsman_client.local.outbox import Backlog, Made, Outbox, Report
from policy.arms.constraints import NoEligibleArm
from policy.choosing.caller import WrongChoice

if TYPE_CHECKING:
    from typing import Self, Unpack

    from pointsman_client.options import RewardOptions, RouteOptions

log = logging.getLogger("pointsman_client")

LONGEST_PAUSE_S = 5.0  # between two attempts at a service that doesn't answer


class Decider:
    """Decides as the service would, without asking it; threads may share one.

    It follows one policy's state, asking every `poll_s` seconds, and sends decisions and rewards
    every `send_s`. At most `buffer` decisions wait to be acknowledged, and as many rewards. What
    isn't acknowledged when the process dies is lost. After a fork, make a new one.

    Raises PointsmanError where the service can't be asked for the state to begin with.

    >>> with Decider("http://127.0.0.1:8080") as decider:  # doctest: +SKIP
    ...     with decider.call("Sort a list in Python.", task_type="code") as call:
    ...         call.quality = grade(ask(call.provider, call.model))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        policy: str = "default",
        *,
        api_key: str | None = None,
        timeout_s: float = 5.0,
        poll_s: float = 1.0,
        send_s: float = 0.1,
        buffer: int = 10_000,
    ) -> None:
        self._name = policy
        self._poll_s, self._send_s = poll_s, send_s
        self._client = Client(url, api_key=api_key, timeout_s=timeout_s, retries=0)
        try:
            self._follower = Follower(self._client, policy)
        except BaseException:
            self._client.close()
            raise
        self._outbox = Outbox(self._client, buffer)
        self._due = threading.Event()
        self._closed = False
        self._troubles: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="pointsman-local", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def route(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """As `Client.route`, but for `logged`: it becomes true with the acknowledgement.

        Raises
        ------
        PointsmanError
            As over HTTP: 422 for what can't be answered, 409 for an id that is waiting already.
        """
        body = orjson.loads(encode(wire.route_body({**options, "text": text})))
        if body.get("policy", self._name) != self._name:
            raise PointsmanError(404, "Unknown policy", f"this decider follows {self._name!r}")
        request, decision_id = request_of(body), body["decision_id"]
        if self._outbox.waits(decision_id):
            raise PointsmanError(409, "Conflict", f"decision {decision_id!r} was made before")
        now = self._follower.now
        policy = now.policy
        try:
            record = policy.decide(request, decision_id, time.time_ns() // 1_000_000)
        except NoEligibleArm as error:
            raise no_arm(error) from None
        except WrongChoice as error:
            raise PointsmanError(422, "Wrong choice of the caller's router", str(error)) from None
        if policy.catalog.arm(record.arm).endpoints:
            record = replace(record, endpoint=endpoint_of(record, policy.catalog))
        if policy.config.store_text and request.query is not None:
            record = replace(record, query=request.query.prompt())
        answer = answer_of(record, policy.catalog, request.constraints, body)
        self._outbox.add(Made(record, now.state, answer))
        return answer

    def reward(self, decision_id: str, **outcome: Unpack[RewardOptions]) -> bool:
        """Report what came of a decision; sent once that is acknowledged. False where too many
        rewards wait, and this one is lost. A refusal is told to the logger alone."""
        sent = wire.reward({**outcome, "policy": self._name, "decision_id": decision_id})
        return self._outbox.report(Report(decision_id, sent.body or b""))

    @contextmanager
    def call(self, text: str | None = None, **options: Unpack[RouteOptions]) -> Iterator[Call]:
        """See `Client.call`; the report goes out in the background, and has no receipt."""
        call = Call(self.route(text, **options))
        try:
            yield call
        except Exception as failure:
            self.reward(**call._stop(failure))
            raise
        self.reward(**call._stop(None))

    def backlog(self) -> Backlog:
        """What waits to be acknowledged, and what is lost."""
        return self._outbox.backlog()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all is acknowledged or refused; false when that takes too long."""
        self._due.set()
        return self._outbox.emptied(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush, and stop following. What is not acknowledged by then is lost."""
        if not self.flush(timeout_s):
            log.warning("closed with %s", self.backlog())
        self._closed = True
        self._due.set()
        self._thread.join()
        self._client.close()

    def _work(self) -> None:
        pause_s, follow_at = self._send_s, time.monotonic() + self._poll_s
        while not self._closed:
            self._due.wait(pause_s)
            self._due.clear()
            done = self._attempted(self._outbox.send, "decisions and rewards wait")
            if time.monotonic() >= follow_at:
                follow_at = time.monotonic() + self._poll_s
                done &= self._attempted(self._follower.refresh, "deciding from the last snapshot")
            pause_s = self._send_s if done else min(2.0 * pause_s, LONGEST_PAUSE_S)

    def _attempted(self, step: Callable[[], None], otherwise: str) -> bool:
        """Whether it was done; whatever is wrong, decisions go on. Told once, until it is over."""
        try:
            step()
        except Exception as error:
            if otherwise not in self._troubles:
                log.warning("%s: %s", otherwise, error)
            self._troubles.add(otherwise)
            return False
        self._troubles.discard(otherwise)
        return True
