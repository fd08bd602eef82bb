"""How the service as a whole stands, which any serving process can tell: read from Redis when
/metrics is asked, and from what the process itself follows. Counts nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from policy.policy import Policy
from policy.values import models
from policy.values.snapshot import read_head
from serving.observing.gauges import Figures
from serving.observing.logs import about
from serving.service import Service
from serving.store.keys import StoreUnavailable
from serving.store.operating import server
from serving.store.operating.standing import StandingStore
from serving.store.waiting import Circuit

log = logging.getLogger(__name__)

READING_S = 2.0  # whoever asks for figures waits for Redis no longer
STREAMS = ("decisions", "outcomes")


class Standing:
    """Reads the figures; those who ask at the same time share a reading of Redis."""

    def __init__(
        self, url: str, service: Service, circuit: Circuit, clock_ms: Callable[[], int]
    ) -> None:
        self._url = url
        self._service = service
        self._circuit = circuit
        self._clock_ms = clock_ms
        self._stores: dict[str, StandingStore] = {}
        self._reading: asyncio.Future[Figures] | None = None

    def close(self) -> None:
        for store in self._stores.values():
            store.close()

    async def read(self) -> Figures:
        """As of now; without those of Redis where it doesn't answer in time."""
        figures = _of_service(self._service)
        up = False
        if self._circuit.away is None:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(READING_S):
                    figures.update(await asyncio.shield(self._shared()))
                up = True
        figures.set("pointsman_redis_up", up)
        return figures

    def _shared(self) -> asyncio.Future[Figures]:
        if self._reading is None or self._reading.done():
            policies = list(self._service.policies.values())
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._of_redis, policies))
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._reading

    def _of_redis(self, policies: Sequence[Policy]) -> Figures:
        figures = Figures()
        for policy in policies:
            if policy.name not in self._stores:
                self._stores[policy.name] = StandingStore(self._url, policy.name, once=True)
            with about(policy=policy.name), _as_far_as_known(f"policy {policy.name}"):
                _of_policy(figures, self._stores[policy.name], policy, self._clock_ms())
        with _as_far_as_known("Redis itself"):  # which may let nobody look at it
            _of_servers(figures, self._url)
        return figures


@contextmanager
def _as_far_as_known(of: str) -> Iterator[None]:
    """What can't be read of one thing costs no figure of another."""
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:
        log.warning("no figures of %s: %s", of, error)


def _of_servers(figures: Figures, url: str) -> None:
    for name, one in server.look(url).items():
        figures.set("pointsman_redis_memory_bytes", one.memory_bytes, name)
        if one.max_memory_bytes:
            figures.set("pointsman_redis_memory_limit_bytes", one.max_memory_bytes, name)
        figures.set("pointsman_redis_durable", one.append_only and not one.failures, name)


def _of_policy(figures: Figures, store: StandingStore, policy: Policy, now_ms: int) -> None:
    name = policy.name
    if policy.config.model not in models.NO_VALUES:
        _of_version(figures, store, policy, "champion", now_ms)
    if policy.challenger is not None:
        _of_version(figures, store, policy.challenger, "challenger", now_ms)
        gate = store.verdict(policy.challenger.version)
        if gate is not None:
            labels = name, policy.challenger.version
            figures.set("pointsman_gate_verdict", 1.0, *labels, gate.verdict)
            figures.set("pointsman_gate_timestamp_seconds", gate.at_ms / 1_000, *labels)
    figures.set("pointsman_learner_running", store.holds("lease"), name)
    figures.set("pointsman_archiver_running", store.holds("archive_lease"), name)
    archived = store.archived()
    for stream in STREAMS:
        waits_ms = store.waits_ms(stream, archived.get(stream, "0-0"))
        figures.set("pointsman_archiver_behind_seconds", waits_ms / 1_000, name, stream)
        figures.set("pointsman_stream_entries", store.length(stream), name, stream)


def _of_version(
    figures: Figures, store: StandingStore, version: Policy, role: str, now_ms: int
) -> None:
    labels = version.name, role
    number, blob = store.snapshot(version.version)
    position = "0-0"
    if blob is not None:
        header = read_head(blob).header
        position = header.position
        learned_ms = int(position.partition("-")[0])
        age_ms = max(now_ms - learned_ms, 0) if learned_ms else None
        figures.set("pointsman_snapshot_age_seconds", age_ms and age_ms / 1_000, *labels)
        figures.set("pointsman_learned_events", header.events, *labels)
    waits_ms = store.waits_ms("outcomes", position)
    figures.set("pointsman_learner_behind_seconds", waits_ms / 1_000, *labels)
    figures.set("pointsman_published_snapshot", number, *labels)


def _of_service(service: Service) -> Figures:
    """What the process follows: health of endpoints, budgets, challengers, the watch's alarm."""
    figures = Figures()
    policies = list(service.policies.values())
    for catalog in {p.catalog.revision: p.catalog for p in policies}.values():
        for arm in catalog.ids:
            for place in service.fleet.shown(catalog, arm):
                labels = arm, _address(place["endpoint"])
                figures.set("pointsman_endpoint_in", place["state"] == "in", *labels)
                figures.set("pointsman_endpoint_failing", place["failing"], *labels)
    for policy in policies:
        worse = service.alarms.get(policy.name) is not None
        figures.set("pointsman_champion_worse", worse, policy.name)
        if (budget := service.fleet.budget(policy.name)) is not None:
            figures.set("pointsman_budget_limit_usd", budget["usd"], policy.name)
            figures.set("pointsman_budget_spent_usd", budget["spent_usd"], policy.name)
            figures.set("pointsman_budget_can_be_kept", budget["can_be_kept"], policy.name)
        if policy.challenger is not None:
            _of_challenger(figures, policy, policy.challenger)
    return figures


def _of_challenger(figures: Figures, policy: Policy, challenger: Policy) -> None:
    labels = policy.name, challenger.version
    scores = challenger.scores.against(policy.version)
    difference = scores.compare(challenger.weights)["reward"].difference
    figures.set("pointsman_challenger_share", policy.share, *labels)
    figures.set("pointsman_challenger_decisions", scores.decisions, *labels)
    figures.set("pointsman_challenger_difference", difference.value, *labels)
    figures.set("pointsman_challenger_difference_error", difference.se, *labels)


def _address(url: str | None) -> str:
    """A URL without what may be a secret: user, password and query."""
    if url is None:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
