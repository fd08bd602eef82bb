"""Whether a process can decide and log. Asks nobody: it answers at once, whatever happens."""

from __future__ import annotations

import datetime

from serving.service import Service
from serving.store.waiting import Circuit


class NotReady(RuntimeError):
    """The process can't do what it is for, and why."""


class Readiness:
    """What is known of it now. `draining` is set by whoever stops the process."""

    def __init__(self, service: Service, circuit: Circuit, *, serves_unlogged: bool) -> None:
        self.draining = False
        self._service = service
        self._circuit = circuit
        self._serves_unlogged = serves_unlogged

    def check(self) -> str | None:
        """What is amiss though the process serves, None where nothing is.

        Raises
        ------
        NotReady
        """
        if self.draining:
            raise NotReady("it is being stopped, and finishes what is under way")
        amiss = self._amiss()
        if unloaded := self._service.unloaded():
            # Not which: whoever asks has no key that says what they may know.
            many = f"{len(unloaded)} policies" if len(unloaded) > 1 else "a policy"
            awaited = f"no snapshot yet of {many}"
            if self._service.unreadable:
                awaited += ", for what is stored can't be read (the log says of which, and why)"
            raise NotReady(awaited if amiss is None else f"{awaited}: {amiss}")
        if amiss is not None and not self._serves_unlogged:
            raise NotReady(amiss)
        return amiss

    def _amiss(self) -> str | None:
        away = self._circuit.away
        if away is None:
            return None
        since = datetime.datetime.fromtimestamp(away.since_ms / 1_000, datetime.UTC)
        return f"{away.why}, since {since.isoformat(timespec='milliseconds')}"
