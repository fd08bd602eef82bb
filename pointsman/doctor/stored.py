"""What is stored of one policy: whether this release can read all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from features.encoder import Encoder
from offline_eval.log import files
from offline_eval.log.segments import STREAMS, find_segments, read_segments
from pointsman.doctor.finding import Finding, Told, named
from policy.arms.catalog import Catalog
from policy.config.versions import read_config
from policy.records import from_stored
from policy.values.snapshot import unpack
from serving.store.operating.standing import StandingStore

DO = (
    "run the release that wrote it, restore a backup, or start anew from the log: "
    "docs/operating/operations.md#upgrading"
)
RESTART = "restart the learner: it writes another"
OF_LOG = "put the file back from a copy of the log, or run the release that wrote it"
LOGS = {stream: f"the log's {stream}" for stream in STREAMS}
REACH = "see whether POINTSMAN_LOG can be reached from here, and read"


def checked(store: StandingStore, policy: str, log: str) -> list[Finding]:
    """Catalog, versions with what they have learned, the newest decision, and the newest files of
    the log: of a format that is read here, and whole."""
    told: list[Told] = []
    for what, read in _parts(store, policy, log):
        do = RESTART if what.endswith("snapshot") else OF_LOG if what in LOGS.values() else DO
        try:
            read()
        except (ValueError, LookupError) as error:
            told.append(("fault", f"{policy}: {what}: {error}", do))
        except OSError as error:
            told.append(("fault", f"{policy}: {what}: {error}", REACH))
    return named("stored", told, f"{policy}: all is of formats that are read here")


def _parts(
    store: StandingStore, policy: str, log: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each by name, and how it is read."""
    state = store.state()
    yield "the catalog", lambda: Catalog.from_stored(store.catalog(state["catalog"]))
    roles = ("champion", "challenger", "previous")
    for version in dict.fromkeys(state[role] for role in roles if state.get(role)):
        yield from _of_version(store, version)
    yield "the newest decision", lambda: _decision(store.newest("decisions"))
    for stream, name in LOGS.items():
        yield name, partial(_newest, log, policy, stream)


def _of_version(store: StandingStore, version: str) -> Iterator[tuple[str, Callable[[], object]]]:
    name = f"version {version}'s"
    yield f"{name} configuration", lambda: read_config(store.version(version)[0])
    yield f"{name} encoder", lambda: Encoder.from_bytes(store.version(version)[1])
    yield f"{name} checkpoint", lambda: _state(store.checkpoint(version))
    yield f"{name} snapshot", lambda: _state(store.files(version).snapshot)


def _state(blob: bytes | None) -> None:
    if blob is not None:
        unpack(blob)


def _decision(fields: dict[bytes, bytes] | None) -> None:
    if fields is not None:
        from_stored(fields[b"record"], fields[b"x"], fields.get(b"challenger_x"))


def _newest(log: str, policy: str, stream: str) -> None:
    on, root = files.filesystem(log)
    read_segments(on, find_segments(on, root, stream, policy)[-1:], stream, ["entry"])
