"""One model call: timed, and reported as what became of its decision. Sends nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pointsman_client import failures
from pointsman_client.answers import Decision, Receipt
from pointsman_client.errors import NotSent, PointsmanError, RateLimited, Unauthorized
from pointsman_client.options import RewardRequest

log = logging.getLogger("pointsman_client")


@dataclass
class Call:
    """One model call, inside the `with` block that times it. Set what you learn about it."""

    decision: Decision
    quality: float | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    """Measured on exit, unless you set it."""
    error: str | None = None
    """What the exception on exit was (timeout, connection, server_error, rate_limited, auth,
    bad_request), or its name, unless you set it; an error means quality 0."""
    usage: Any = None
    """What the provider sent with its answer, as it is: priced at the decision's prices."""
    ttft_ms: float | None = None
    executed_arm: str | None = None
    """The arm that really answered, if it was another."""
    executed: bool | None = None
    """False if in the end nothing was called: the decision is withdrawn."""
    receipt: Receipt | None = None
    _tokens: tuple[int, int] | None = field(default=None, repr=False)
    _started: float = field(default_factory=time.perf_counter, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).__dataclass_fields__:  # else a slip would lose what was learned
            known = ", ".join(n for n in self.__dataclass_fields__ if not n.startswith("_"))
            raise AttributeError(f"a call takes no {name!r} (known: {known})")
        super().__setattr__(name, value)

    @property
    def decision_id(self) -> str:
        """What a later `reward` or `correct` needs."""
        return self.decision.decision_id

    @property
    def arm(self) -> str:
        return self.decision.arm

    @property
    def provider(self) -> str:
        return self.decision.provider

    @property
    def model(self) -> str:
        return self.decision.model

    @property
    def endpoint(self) -> str | None:
        return self.decision.endpoint

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """Token counts, priced by the service at the decision's prices."""
        self._tokens = (input_tokens, output_tokens)

    def _stop(self, failure: Exception | None) -> RewardRequest:
        """Stop the clock, take the failure down, and say what there is to report."""
        if self.latency_ms is None:
            self.latency_ms = (time.perf_counter() - self._started) * 1000.0
        retry_after_s = None
        if failure is not None and self.error is None:
            self.error, retry_after_s = failures.kind(failure), failures.retry_after_s(failure)
        outcome: RewardRequest = {"decision_id": self.decision_id, "policy": self.decision.policy}
        if self.executed is False:
            return {**outcome, "executed": False}
        if self.cost_usd is None and self.usage is None and self._tokens is not None:
            outcome["input_tokens"], outcome["output_tokens"] = self._tokens
        return {
            **outcome,
            "quality": self.quality if self.error is None else None,
            "latency_ms": self.latency_ms,
            "cost_usd": self.cost_usd,
            "usage": self.usage,
            "ttft_ms": self.ttft_ms,
            "error": self.error,
            "retry_after_s": retry_after_s,
            "executed_arm": self.executed_arm,
        }

    def _unreported(self, error: PointsmanError, failure: Exception | None) -> None:
        """Raise what the caller got wrong; an answer is not spoilt by a service out of reach, by a
        proxy before it, by a limit, nor by a key that has ended meanwhile."""
        refused = error.problem and error.status is not None and error.status < 500
        refused = refused and not isinstance(error, (RateLimited, Unauthorized))
        if failure is None and (refused or isinstance(error, NotSent)):
            raise error
        log.warning("outcome of decision %s not reported: %s", self.decision_id, error)
