"""One thread per policy, for those that the configuration names now or later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from serving.observing.logs import about


def run_each(
    policies: Callable[[], Iterable[str]], work: Callable[[str], None], stop: threading.Event
) -> None:
    """Work on each policy, in a thread of its own, until `stop`.

    The first failure stops all of them and is raised: nothing goes on in silence.
    """
    failures: list[BaseException] = []
    threads: dict[str, threading.Thread] = {}

    def run(policy: str) -> None:
        try:
            with about(policy=policy):
                work(policy)
        except BaseException as error:
            failures.append(error)
            stop.set()

    while not stop.is_set():
        for name in policies():
            if name not in threads:
                threads[name] = threading.Thread(target=run, args=(name,), name=name)
                threads[name].start()
        stop.wait(1.0)
    for thread in threads.values():
        thread.join()
    if failures:
        raise failures[0]
