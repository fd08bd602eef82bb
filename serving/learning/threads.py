"""One thread per policy, for those that the configuration names now or later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from policy.stored import Unreadable
from serving.observing.logs import about

log = logging.getLogger(__name__)

RETRY_S = 5.0


def run_each(
    policies: Callable[[], Iterable[str]], work: Callable[[str], None], stop: threading.Event
) -> None:
    """Work on each policy, in a thread of its own, until `stop`.

    A failure is that of its policy alone: it is told, and the work begun anew after a pause, while
    the others go on.
    """
    threads: dict[str, threading.Thread] = {}

    def run(policy: str) -> None:
        with about(policy=policy):
            while not stop.is_set():
                try:
                    work(policy)
                except Exception as error:
                    log.critical(
                        "policy %s stands still, and is tried again every %g s: %s",
                        policy,
                        RETRY_S,
                        error,
                        exc_info=None if isinstance(error, Unreadable) else error,
                    )
                    stop.wait(RETRY_S)

    while not stop.is_set():
        for name in policies():
            if name not in threads:
                threads[name] = threading.Thread(target=run, args=(name,), name=name)
                threads[name].start()
        stop.wait(1.0)
    for thread in threads.values():
        thread.join()
