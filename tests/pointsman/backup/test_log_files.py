"""A log that goes further than the Redis it is put away with is cut where that ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from offline_eval.log import archive
from pointsman.archiver import Window, archive_burst
from pointsman.backup import log_files
from pointsman.backup.manifest import Folder, Manifest
from serving.settings import Settings
from tests.servers import drive, http_service


@pytest.mark.parametrize("kept", [0, 12, 20])
def test_what_came_later_stays_out(settings: Settings, raw: redis.Redis, tmp_path: Path, kept: int):
    """Though one file holds both: the rows of that moment, and no outcome of a later one."""
    with http_service(settings) as http:
        ids = drive(http, 20)
    streams = ("decisions", "outcomes")
    entries = {s: [e.decode() for e, _ in raw.xrange(f"pm:{{default}}:{s}")] for s in streams}
    ends = {s: ["0-0", *found][kept] for s, found in entries.items()}
    archive_burst(settings.redis_url or "", settings.log_path(), {"default": Window(3_600_000)})
    folder = Folder(str(tmp_path / "backup"))
    at = log_files.save(settings.log_path(), "default", folder, ends)
    assert (at.decisions, at.outcomes) == (ends["decisions"], ends["outcomes"])
    log_files.load(folder, Manifest(0, "", files=folder.put), str(tmp_path / "restored"))
    rows = [row for t in archive.tables(str(tmp_path / "restored")) for row in t.to_pylist()]
    assert [row["decision_id"] for row in rows] == ids[:kept]
    assert all(row["quality"] is not None for row in rows)
    events = [
        event for some in archive.events(str(tmp_path / "restored"), "default") for event in some
    ]
    assert [entry for entry, _ in events] == entries["outcomes"][:kept]
