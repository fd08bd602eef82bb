"""What a client keeps while the service can't log or be reached: tokens of decisions, and reports
that nobody took. Sends nothing."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from pointsman_client.answers import Decision, Receipt
from pointsman_client.errors import NotSent, PointsmanError
from pointsman_client.options import RewardRequest

log = logging.getLogger("pointsman_client")

MOST = 1_000  # of each; the oldest give way
AT_ONCE = 100  # kept reports that are sent together, ...
AT_ONCE_CHARACTERS = 262_144  # ... and no further one once their tokens are as long as this
BUSY = (429, 502, 503, 504)


class Unlogged:
    """Threads may share one."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._reports: deque[RewardRequest] = deque(maxlen=MOST)
        self._lock = threading.Lock()

    def seen(self, *decisions: Decision | PointsmanError) -> None:
        """Keep the tokens of those that have one."""
        with self._lock:
            for one in decisions:
                if isinstance(one, Decision) and one.token is not None:
                    self._tokens[one.decision_id] = one.token
            while len(self._tokens) > MOST:
                del self._tokens[next(iter(self._tokens))]

    def with_token(self, request: RewardRequest) -> RewardRequest:
        """A report, with the token of its decision where that is known."""
        token = self._tokens.get(request["decision_id"])
        return request if token is None else {"token": token, **request}

    def keep(self, report: RewardRequest, error: PointsmanError) -> None:
        """Keep a report that nobody took, if somebody may later."""
        if not isinstance(error, NotSent) and (error.status is None or error.status in BUSY):
            with self._lock:
                self._reports.append(report)

    def take(self) -> list[RewardRequest]:
        """Some of the reports that were kept, the oldest first; they are kept no longer."""
        taken: list[RewardRequest] = []
        with self._lock:
            characters = 0
            while self._reports and len(taken) < AT_ONCE and characters < AT_ONCE_CHARACTERS:
                taken.append(self._reports.popleft())
                characters += len(taken[-1].get("token") or "")
        return taken

    def settle(
        self, reports: Sequence[RewardRequest], told: Sequence[Receipt | PointsmanError]
    ) -> bool:
        """Keep those again that were not taken; whether there were none."""
        before = len(self._reports)
        for report, one in zip(reports, told):
            if isinstance(one, PointsmanError):
                self.keep(report, one)
                log.warning("outcome of decision %s not reported: %s", report["decision_id"], one)
        return len(self._reports) == before

    def __len__(self) -> int:
        return len(self._reports)
