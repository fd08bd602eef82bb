"""The Redis server: whether it keeps what it is given, has memory left, and a clock like ours."""

from __future__ import annotations

from collections.abc import Iterator

from pointsman.archiver import IN_FLIGHT_MS
from pointsman.doctor.finding import Finding, Told, named
from serving.store.operating.server import Server

FULL = 0.8  # of the memory cap: time to look
OVERFULL = 0.95
ASKEW_MS = 500


def checked(server: Server, place: str = "", wait_replicas: int = 0) -> list[Finding]:
    """Role, persistence, memory and clock; `place` says which server this is, where there are
    several, and `wait_replicas` how many replicas a decision waits for."""
    kept = "each write" if server.fsync == "always" else "at most a second is lost"
    of = f" of {_mib(server.max_memory_bytes)}" if server.max_memory_bytes else ""
    found = [
        *named(
            "redis",
            list(_role(server, wait_replicas)),
            f"version {server.version}, {_replicas(server)}",
        ),
        *named("persistence", list(_persistence(server)), f"append-only file: {kept}"),
        *named("memory", list(_memory(server)), f"{_mib(server.memory_bytes)}{of}, noeviction"),
        *named("clock", list(_clock(server)), f"Redis and this host differ by {_skew(server)}"),
    ]
    where = f"{place}: " if place else ""
    return [finding._replace(what=where + finding.what) for finding in found]


def _role(server: Server, wait_replicas: int) -> Iterator[Told]:
    if server.role not in ("master", "primary"):
        yield "fault", "it is a replica and takes no writes", "name the primary, or a Sentinel"
    elif server.min_replicas and server.replicas < server.min_replicas:
        yield (
            "fault",
            f"{_replicas(server)}, and it takes no writes with fewer than {server.min_replicas}",
            "bring the replicas back, or lower min-replicas-to-write",
        )
    elif server.replicas < wait_replicas:
        yield (
            "fault",
            f"{_replicas(server)}, and no decision is acknowledged with fewer than {wait_replicas}",
            "bring the replicas back, or lower POINTSMAN_WAIT_REPLICAS",
        )


def _persistence(server: Server) -> Iterator[Told]:
    turn_on = "set appendonly yes"
    if server.append_only:
        if server.fsync == "no":
            yield (
                "warning",
                "the system decides when writes reach the disk (appendfsync no): half a minute of "
                "what was acknowledged may be lost",
                "set appendfsync everysec or always",
            )
    elif server.snapshots:
        yield (
            "warning",
            "there are snapshots only: a crash loses what was acknowledged since the last one",
            turn_on,
        )
    else:
        yield "fault", "nothing is on the disk: a restart of Redis loses everything", turn_on
    for name in server.failures:
        yield "fault", f"{name} failed when it was last tried", "look at the server's log and disk"


def _memory(server: Server) -> Iterator[Told]:
    if server.eviction != "noeviction":
        yield (
            "fault",
            f"it evicts keys (maxmemory-policy {server.eviction}) and would lose decisions",
            "set maxmemory-policy noeviction",
        )
    if not server.max_memory_bytes:
        yield (
            "warning",
            f"there is no cap ({_mib(server.memory_bytes)} are used): when memory ends the system "
            "kills the server",
            "set maxmemory",
        )
        return
    share = server.memory_bytes / server.max_memory_bytes
    if share > FULL:
        used = f"{_mib(server.memory_bytes)} of {_mib(server.max_memory_bytes)} are used"
        do = "raise the cap, or shorten retention_s; look whether the archiver keeps up"
        yield (
            ("fault" if share > OVERFULL else "warning"),
            f"{used}; beyond it writes answer 503",
            do,
        )


def _clock(server: Server) -> Iterator[Told]:
    skew_ms = max(abs(server.skew_ms) - server.unsure_ms, 0.0)
    if skew_ms > ASKEW_MS:
        wrong = "; rewards near the end of their window are counted wrongly"
        yield (
            "fault" if skew_ms > IN_FLIGHT_MS else "warning",
            f"Redis and this host differ by {_skew(server)}"
            f"{wrong if skew_ms > IN_FLIGHT_MS else ''}",
            "synchronise both with NTP",
        )


def _skew(server: Server) -> str:
    return f"{server.skew_ms:.0f} ms (± {server.unsure_ms:.0f})"


def _replicas(server: Server) -> str:
    return f"{server.replicas} replica{'' if server.replicas == 1 else 's'}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
