"""Learner and archiver of one policy: whether they run, and how far they are behind."""

from __future__ import annotations

from collections.abc import Iterator

from offline_eval.log import archive, files
from pointsman.doctor.finding import Finding, Level, Told, named
from policy.config.versions import read_config
from policy.values import models
from policy.values.snapshot import read_head
from serving.settings import Settings
from serving.store.operating.standing import StandingStore

BEHIND_MS = 30_000  # beyond what the intervals between two writes explain
FAR_BEHIND_MS = 600_000
RUNS = "`pointsman up` runs it; alone: `pointsman {}`"


def checked(store: StandingStore, policy: str, chosen: Settings) -> list[Finding]:
    """LookupError, where the policy was never registered."""
    learner, archiver = list(_learner(store, chosen)), list(_archiver(store, policy, chosen))
    return [
        *named("learner", [_of(policy, one) for one in learner], f"{policy}: up to date"),
        *named("archiver", [_of(policy, one) for one in archiver], f"{policy}: up to date"),
    ]


def _of(policy: str, told: Told) -> Told:
    level, what, do = told
    return level, f"{policy}: {what}", do


def _learner(store: StandingStore, chosen: Settings) -> Iterator[Told]:
    if not store.holds("lease"):
        yield "fault", "no learner runs: nothing is learned", RUNS.format("learn")
    roles, state = store.roles(), store.state()
    assert roles is not None, state
    for version in filter(None, (roles.champion, roles.challenger)):
        try:
            config, _ = store.version(version)
            if read_config(config).model in models.NO_VALUES:
                continue
            head = store.checkpoint_head(version)
            position = "0-0" if head is None else read_head(head).header.position
        except (ValueError, LookupError):
            continue  # the check of what is stored tells of it
        waits_ms = store.waits_ms("outcomes", position)
        yield from _lag(
            f"version {version} has not learned", waits_ms, chosen.checkpoint_interval_s
        )


def _archiver(store: StandingStore, policy: str, chosen: Settings) -> Iterator[Told]:
    if not store.holds("archive_lease"):
        yield "fault", "no archiver runs: Redis keeps everything", RUNS.format("archive")
    try:
        at = archive.position(chosen.log_path(), policy)
    except (ValueError, OSError) as error:
        yield "fault", f"the log can't be read: {error}", "see docs/operating/operations.md"
        return
    if at.origin and at.origin != store.origin():
        yield (
            "fault",
            f"the log at {files.shown(chosen.log_path())} belongs to another service",
            "name this service's own as POINTSMAN_LOG, or an empty folder",
        )
        return
    waits_ms = max(
        store.waits_ms(stream, getattr(at, stream)) for stream in ("decisions", "outcomes")
    )
    yield from _lag("not archived", waits_ms, chosen.archive_interval_s)


def _lag(what: str, waits_ms: int, interval_s: float) -> Iterator[Told]:
    if waits_ms > BEHIND_MS + 3_000 * interval_s:
        level: Level = "fault" if waits_ms > FAR_BEHIND_MS else "warning"
        yield level, f"{what} for {waits_ms / 1_000:,.0f} s what waits", "look at its log"
