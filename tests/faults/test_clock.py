"""Clocks that jump: those of all processes of a service, Redis among them, forward and back."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from offline_eval.log.reading import read_rows
from serving.processes.embedded import running_url
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import PATIENT
from tests.faults.traffic import Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, running_up, until

COMPILER = shutil.which("cc")
HOUR_S = 3600

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(COMPILER is None, reason="a clock that can be set needs a C compiler"),
]


class Clock:
    """Of the processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [str(COMPILER), "-shared", "-fPIC", "-O2", "-o", library, source], check=True
        )
        self._file = folder / "clock"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """So far ahead of the machine's, or behind; in the file that is mapped, so not anew."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", ahead_s))


@pytest.mark.parametrize("jumps", [(2 * HOUR_S, 0), (-2 * HOUR_S, 0)], ids=["forward", "back"])
def test_a_clock_that_jumps(tmp_path: Path, recovered: Recovered, jumps: tuple[int, int]):
    """And jumps again, to where it was. Nothing is lost; what is reported of a decision that was
    made before a jump forward comes late, and is learned. A learner and an archiver that die just
    after a jump are replaced. What is decided afterwards isn't closed before its time."""
    clock = Clock(tmp_path)
    environment = {"POINTSMAN_FSYNC": "always", **PATIENT, **clock.environment}
    with running_up(tmp_path, CONFIG, **environment) as (process, http):
        log = str(tmp_path / "data" / "log")
        with Traffic(str(http.base_url), seed=7, pause_s=0.01) as traffic:
            traffic.reach(300)
            for ahead_s in jumps:
                clock.set(ahead_s)
                for victim in ("learner", "archiver"):
                    places.kill(victim, process.pid)
                recovery = Recovery(traffic.ledger, http, log)
                recovery.shift(ahead_s)
                took = recovery.took()
                traffic.reach(traffic.ledger.acknowledged + 200)
            recovered(took)
        verify(traffic.ledger, running_url(tmp_path / "data"), log)
        made = http.post("/route", json={"decision_id": "new", "query": {"text": "?"}}).json()
        assert made["decision_id"] == "new"
        until(lambda: any(row.decision.decision_id == "new" for row in read_rows(log)), "archived")
        new = next(row for row in read_rows(log) if row.decision.decision_id == "new")
        assert not new.outcome.closed
    assert traffic.ledger.answers.keys() == {200}
