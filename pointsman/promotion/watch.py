"""After a promotion: is the new champion worse than the one it replaced?

Asks the gate the other way round: may the version that was replaced, which keeps a share of the
draw and goes on learning, become champion again? Then it says so and, where the policy is set to,
rolls back. Like every gate it may be asked at any time; it is loaded when there is something to
ask, for with every service a watch runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from policy.config.schema import PolicyConfig
from serving.observing.logs import about
from serving.store.keys import Alarm, StoreUnavailable
from serving.store.operations import OperatorStore
from serving.store.registered import Refused

log = logging.getLogger(__name__)

WHO = "pointsman watch"
LOOKING = 0.1  # of the time, at most

Wait = Callable[[float], bool]  # seconds; true when it is time to stop


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a policy has found: `worse` is the champion, than what it replaced."""

    state: Literal["worse", "not shown", "nothing to watch"]
    text: str
    champion: str = ""
    previous: str = ""
    rolled_back: bool = False


def look(store: OperatorStore, policy: str, wanted: PolicyConfig, path: str, now_ms: int) -> Look:
    """Compare a policy's champion with the version it replaced, on the log at `path`.

    Raises
    ------
    LookupError
        If the policy isn't registered.
    """
    state = store.state()
    champion, previous = state["champion"], state.get("previous", "")
    if not previous or state.get("challenger") != previous:
        return Look("nothing to watch", "no champion that was replaced runs beside it", champion)
    from pointsman.promotion import asking  # noqa: PLC0415

    try:
        since_ms = _promoted_ms(store, champion)
        judged = asking.judge(store, policy, wanted, previous, path, now_ms, since_ms=since_ms)
    except ValueError as error:  # nothing in the log yet, as a rule
        return Look("not shown", str(error), champion, previous)
    verdict = judged.verdict
    if verdict.verdict != "pass":
        return Look("not shown", "; ".join(verdict.reasons), champion, previous)
    told = f"version {champion} is shown to be worse than version {previous}, which it replaced"
    if "alarm" not in state:
        store.alarm(Alarm(champion, previous, verdict.reasons, now_ms))
    rolled_back = wanted.auto_rollback and _roll_back(store, champion, told, now_ms)
    return Look("worse", told, champion, previous, rolled_back)


def _promoted_ms(store: OperatorStore, champion: str) -> int:
    promotions = store.audit(("promoted", "override"))
    return max(int(entry["at_ms"]) for entry in promotions if entry["version"] == champion)


def _roll_back(store: OperatorStore, champion: str, why: str, now_ms: int) -> bool:
    """False where an operator was faster."""
    try:
        store.rollback(WHO, why, now_ms, champion)
    except Refused:
        return False
    return True


def burst(
    url: str, policies: Mapping[str, PolicyConfig], path: str, mlflow_uri: str
) -> dict[str, Look]:
    """One look at each policy; MLflow hears who serves after a rollback."""
    found = {}
    for name, wanted in policies.items():
        with closing(OperatorStore(url, name)) as store:
            try:
                found[name] = look(store, name, wanted, path, time.time_ns() // 1_000_000)
            except LookupError as error:  # as long as serving hasn't registered it
                found[name] = Look("nothing to watch", str(error))
            if found[name].rolled_back:
                from pointsman.promotion import roles  # noqa: PLC0415

                roles.tell_roles(mlflow_uri, name, store.state())
    return found


def run(
    url: str,
    policies: Callable[[], Mapping[str, PolicyConfig]],
    path: str,
    mlflow_uri: str,
    wait: Wait,
    interval_s: float,
) -> None:
    """Look at all policies every `interval_s`, or less often where a look takes long, until `wait`
    says so. What it finds is logged once."""
    said: dict[str, Look] = {}
    pause = interval_s
    while not wait(pause):
        started = time.monotonic()
        try:
            for name, found in burst(url, policies(), path, mlflow_uri).items():
                with about(policy=name):
                    _say(name, found, said)
        except (StoreUnavailable, OSError) as error:
            log.warning("%s; trying again", error)
        pause = max(interval_s, (time.monotonic() - started) / LOOKING)


def _say(name: str, found: Look, said: dict[str, Look]) -> None:
    if found.state == "worse" and said.get(name) != found:
        then = "rolled back" if found.rolled_back else f"go back with `pointsman rollback {name}`"
        log.error("policy %s: %s; %s", name, found.text, then)
    said[name] = found
