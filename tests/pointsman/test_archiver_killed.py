"""Promise 1 of the log: what an archiver that is killed was about to write comes there once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import httpx
import numpy as np
import pytest
import redis

from offline_eval.log import archive
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log
from offline_eval.log.segments import Position
from tests.pointsman.test_archiver import DECISIONS, archive_all
from tests.servers import drive, learn_all, until


def _has_moved(path: str, before: Position) -> bool:
    return archive.position(path, "default") != before


@pytest.mark.parametrize(
    "kills", [3, pytest.param(40, marks=pytest.mark.slow)], ids=["3 kills", "40 kills"]
)
def test_kill_9_of_the_archiver_loses_and_repeats_nothing(
    http: httpx.Client, redis_url: str, tmp_path: Path, raw: redis.Redis, kills: int
):
    """At random moments under traffic, with the learner at work: each decision and each outcome
    that was acknowledged is in the log once."""
    rng = random.Random(kills)
    environment = {
        **os.environ,
        "POINTSMAN_REDIS_URL": redis_url,
        "POINTSMAN_CONFIG": str(tmp_path / "pointsman.toml"),
        "POINTSMAN_DATA": str(tmp_path),
        "POINTSMAN_ARCHIVE_INTERVAL_S": "0.005",  # so that it is nearly always about to write
    }
    path, ids, over = str(tmp_path / "log"), list[str](), threading.Event()

    def traffic() -> None:
        while not over.is_set():
            ids.extend(drive(http, 10))
            learn_all(redis_url)

    with ThreadPoolExecutor(1) as pool:
        driving = pool.submit(traffic)
        try:
            for _ in range(kills):
                before = archive.position(path, "default")
                process = subprocess.Popen(
                    [sys.executable, "-m", "pointsman", "archive"],
                    env=environment,
                    stderr=subprocess.DEVNULL,
                )
                try:
                    until(partial(_has_moved, path, before), "it archives", 30.0)
                    time.sleep(rng.uniform(0.0, 0.1))
                finally:
                    process.kill()
                    process.wait()
                raw.delete("pm:{default}:archive_lease")  # it has run out
        finally:
            over.set()
            driving.result()
    archive_all(redis_url, path)
    data = read_log(path)
    assert sorted(data.decision_ids) == sorted(ids)
    check_log(data)
    assert not np.isnan(data.outcomes).any()
    told = [event[b"decision_id"].decode() for _, event in chain(*archive.events(path, "default"))]
    assert sorted(told) == sorted(ids)
    assert raw.xlen(DECISIONS) == 1
