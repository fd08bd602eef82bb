"""The archiver: every entry of both streams comes to the log once, whatever crashes when."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from click.testing import CliRunner

from features.encoder import Encoder
from offline_eval.log import archive
from offline_eval.log.archive import Archive
from offline_eval.log.checking import check_log
from offline_eval.log.reading import read_log, read_rows
from offline_eval.log.segments import Position
from pointsman.archiver import Archiver, Window, archive_burst, learned, moved
from pointsman.cli import cli
from pointsman.commands.archive import command
from policy.config.versions import read_config
from policy.values.linear.model import LinearModel
from policy.values.snapshot import Header, State, read_head, unpack
from serving.learning.fold import Fold
from serving.learning.reading import BATCH
from serving.store.archiving import ArchiverStore
from serving.store.keys import StaleLease
from serving.store.learning import LearnerStore
from tests.servers import CONFIG, drive, learn_all, until

DECISIONS, OUTCOMES = "pm:{default}:decisions", "pm:{default}:outcomes"
WINDOW_MS = 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def store(redis_url: str) -> Iterator[ArchiverStore]:
    opened = ArchiverStore(redis_url, "default")
    yield opened
    opened.close()


def archive_all(redis_url: str, path: str) -> tuple[int, int]:
    """Archive what is in the streams; how many decisions and outcome events."""
    archived = archive_burst(redis_url, path, {"default": Window(WINDOW_MS)})["default"]
    return archived["decisions"], archived["outcomes"]


def archiver(store: ArchiverStore, path: str, interval_s: float = 0.05) -> Archiver:
    return Archiver(
        store, Archive(path, "default"), "default", lambda: Window(WINDOW_MS), interval_s
    )


def test_what_was_decided_and_told_comes_to_the_log(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """As rows of the log's schema, in the order they were made, and as the API shows them."""
    ids = drive(http, 7)
    events = dict(raw.xrange(OUTCOMES))
    assert archive_all(redis_url, path) == (7, 7)
    assert archive_all(redis_url, path) == (0, 0)
    data = read_log(path)
    assert list(data.decision_ids) == ids
    check_log(data)
    assert data.outcomes[:, 1].tolist() == [100.0 + i for i in range(7)]
    assert not data.closed.any()
    for row in read_rows(path, policy="default"):
        shown = http.get(f"/decisions/{row.decision.decision_id}").json()
        assert shown["decision"]["arm"] == row.decision.arm
        assert shown["decision"]["pmf"] == row.decision.pmf.tolist()
        assert shown["outcome"]["quality"] == row.outcome.quality
    (batch,) = archive.events(path, "default")
    assert {entry.encode(): event for entry, event in batch} == events


def test_a_fold_of_the_archive_is_the_learners_state(http: httpx.Client, redis_url: str, path: str):
    """Byte for byte: a learner that lost its checkpoint could start over from the log."""
    drive(http, 30)
    drive(http, 5, error="timeout", quality=0.0)
    archive_all(redis_url, path)
    learn_all(redis_url)
    store = LearnerStore(redis_url, "default")
    config, encoder = store.version("1")
    fold = Fold.resume(
        "1",
        read_config(config),
        Encoder.from_bytes(encoder),
        None,
        lambda revision: archive.catalog(path, "default", revision),
    )
    entries = [entry for some in archive.events(path, "default") for entry in some]
    assert len(entries) <= BATCH  # as the learner read them
    fold.fold(entries)
    assert fold.checkpoint().pack() == store.checkpoint("1")
    store.close()


def test_a_batch_moves_the_position_by_hand():
    """Each stream's to its last entry; what is closed stays closed."""
    at = Position("5-0", "7-0", 1_000)
    assert moved(at, [("6-0", {}), ("6-1", {})], [], 900) == Position("6-1", "7-0", 1_000)
    assert moved(at, [], [("10-0", {})], 1_100) == Position("5-0", "10-0", 1_100)


def test_outcomes_go_when_they_are_archived_and_learned_by_all():
    """The least of these positions, as numbers; nothing before every one has a checkpoint."""

    def checkpoint(position: str) -> bytes:
        return State(Header("linear", "1", "e", position, 0), {}).head()

    assert learned("20-0", []) == "20-0"
    assert learned("20-0", [checkpoint("9-0")]) == "9-0"
    assert learned("20-0", [checkpoint("100-0"), checkpoint("30-0")]) == "20-0"
    assert learned("20-0", [checkpoint("9-0"), None]) == ""


def test_what_a_checkpoint_still_needs_is_not_dropped(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """Archived decisions go at once; outcomes go once champion and challenger have learned them."""
    drive(http, 5)
    archive_all(redis_url, path)
    assert (raw.xlen(DECISIONS), raw.xlen(OUTCOMES)) == (1, 5)  # the last one stays
    learn_all(redis_url)
    drive(http, 5)
    archive_all(redis_url, path)
    assert raw.xlen(OUTCOMES) == 6
    learn_all(redis_url)
    archive_all(redis_url, path)
    assert raw.xlen(OUTCOMES) == 1
    head = raw.hget("pm:{default}:checkpoint:1", "head")
    assert read_head(head).header.events == 10


def test_a_challenger_that_learns_holds_outcomes_too(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """Without a checkpoint of its own it has learned nothing; without the role it needs nothing."""
    drive(http, 5)
    learn_all(redis_url)
    raw.hset("pm:{default}:state", "challenger", "2")
    archive_all(redis_url, path)
    assert raw.xlen(OUTCOMES) == 5
    raw.hset("pm:{default}:state", "challenger", "")
    archive_all(redis_url, path)
    assert raw.xlen(OUTCOMES) == 1


def test_roles_that_change_meanwhile_keep_the_outcomes(
    http: httpx.Client, redis_url: str, store: ArchiverStore, raw: redis.Redis
):
    """A version that has just got a role may be behind those whose checkpoints were looked at."""
    drive(http, 3)
    roles, token = store.roles(), store.acquire()
    raw.hset("pm:{default}:state", "challenger", "2")
    last = store.entries("outcomes", "0-0", 10)[-1][0]
    store.keep(token, "", last, roles)
    assert raw.xlen(OUTCOMES) == 3


def test_memory_stays_bounded_under_traffic(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """With archiver and learner at work, the streams hold what is new, however much there was."""
    most = 0
    for _ in range(6):
        drive(http, 20)
        learn_all(redis_url)
        archive_all(redis_url, path)
        most = max(most, raw.xlen(DECISIONS) + raw.xlen(OUTCOMES))
    assert most == 2
    assert len(read_log(path)) == 120


def test_a_second_archiver_is_refused(
    http: httpx.Client, redis_url: str, path: str, store: ArchiverStore
):
    """Two never both write: the lease is held by one, and is not the learner's."""
    drive(http, 1)
    token = store.acquire()
    with pytest.raises(StaleLease, match="another archiver"):
        archive_all(redis_url, path)
    assert learn_all(redis_url) == 1
    store.release(token)
    assert archive_all(redis_url, path) == (1, 1)


def test_an_archiver_that_was_overtaken_drops_nothing(
    http: httpx.Client, redis_url: str, path: str, store: ArchiverStore, raw: redis.Redis
):
    """Nor does it move the position, even when the lease has meanwhile run out."""
    drive(http, 3)
    slow = archiver(store, path)
    slow._token = store.acquire()
    slow._resume()
    raw.delete("pm:{default}:archive_lease")  # it has run out
    assert archive_all(redis_url, path) == (3, 3)
    drive(http, 1)
    with pytest.raises(StaleLease):
        slow._turn()
    assert archive_all(redis_url, path) == (1, 1)
    assert len(read_log(path)) == 4
    assert sum(map(len, archive.events(path, "default"))) == 4


def test_a_server_that_lost_its_last_entries_goes_on_behind_the_log(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """Its stream ends before the position: no id up to there is given again, whatever its clock
    says, so what comes later is archived."""
    drive(http, 2)
    archive_all(redis_url, path)
    at = archive.position(path, "default")
    ahead = Position("99999999999999-0", at.outcomes, at.closed_before_ms)
    Archive(path, "default").commit(ahead)
    archive_all(redis_url, path)
    drive(http, 1)
    ((entry, _),) = raw.xrange(DECISIONS)
    assert entry == b"99999999999999-1"
    assert archive_all(redis_url, path) == (1, 1)


def test_an_empty_server_beside_an_old_log_goes_on(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """The streams are gone, with all that was in them; the log keeps its rows."""
    drive(http, 2)
    archive_all(redis_url, path)
    raw.delete(DECISIONS, OUTCOMES, "pm:{default}:trimmed")
    drive(http, 3)
    assert archive_all(redis_url, path) == (3, 3)
    assert len(read_log(path)) == 5


def test_a_new_place_for_the_log_starts_with_what_is_still_there(
    http: httpx.Client, redis_url: str, tmp_path: Path
):
    """What was trimmed lies in the old place."""
    drive(http, 3)
    archive_all(redis_url, str(tmp_path / "old"))
    drive(http, 2)
    assert archive_all(redis_url, str(tmp_path / "new")) == (3, 5)  # no outcome is learned yet
    assert len(read_log(str(tmp_path / "new"))) == 3


def test_a_position_that_was_put_back_loses_nothing(http: httpx.Client, redis_url: str, path: str):
    """By an archiver that had been overtaken, in its last breath: what was dropped since from the
    streams is in the files, which are kept."""
    drive(http, 3)
    archive_all(redis_url, path)
    drive(http, 2)
    before = archive.position(path, "default")
    archive_all(redis_url, path)
    Archive(path, "default").commit(before)
    drive(http, 1)
    archive_all(redis_url, path)
    data = read_log(path)
    check_log(data)
    assert len(data) == 6
    assert sum(map(len, archive.events(path, "default"))) == 6


def test_the_log_of_another_service_is_refused(
    http: httpx.Client, redis_url: str, path: str, raw: redis.Redis
):
    """Its position says nothing of these streams: what it seems to have archived it has not."""
    drive(http, 2)
    Archive(path, "default").commit(Position("99999999999999-0", "99999999999999-0"))
    with pytest.raises(ValueError, match="belongs to another service"):
        archive_all(redis_url, path)
    assert (raw.xlen(DECISIONS), raw.xlen(OUTCOMES)) == (2, 2)


def test_a_path_that_cant_be_written_is_waited_out(
    http: httpx.Client, redis_url: str, tmp_path: Path, store: ArchiverStore, caplog: Any
):
    """With a line that says so; nothing is lost meanwhile."""
    drive(http, 3)
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    stop = threading.Event()
    thread = threading.Thread(target=archiver(store, str(blocked)).run, args=(stop,))
    thread.start()
    try:
        until(lambda: "the log can't be written" in caplog.text, "it says so")
        blocked.unlink()
        until(lambda: archive.is_archive(str(blocked)), "it goes on")
    finally:
        stop.set()
        thread.join(10.0)
    assert len(read_log(str(blocked))) == 3


def test_rows_close_when_their_window_has_passed(
    http: httpx.Client, redis_url: str, path: str, store: ArchiverStore
):
    """By the store's clock, with both streams read to their ends; without any new entry."""
    drive(http, 2)
    window_ms = 0
    Archiver(store, Archive(path, "default"), "default", lambda: Window(window_ms), 0.05).burst()
    assert not read_log(path).closed.any()  # an outcome may still be on its way
    time.sleep(2.1)
    Archiver(store, Archive(path, "default"), "default", lambda: Window(window_ms), 0.05).burst()
    assert read_log(path).closed.all()


def test_the_command_archives_a_burst(
    http: httpx.Client, redis_url: str, tmp_path: Path, raw: redis.Redis
):
    """One JSON object, or a line per policy."""
    drive(http, 2)
    environment = {
        "POINTSMAN_REDIS_URL": redis_url,
        "POINTSMAN_CONFIG": str(tmp_path / "pointsman.toml"),
        "POINTSMAN_DATA": str(tmp_path / "data"),
    }
    done = CliRunner(env=environment).invoke(command, ["--burst", "--json"])
    assert json.loads(done.stdout) == {"default": {"decisions": 2, "outcomes": 2}}
    done = CliRunner(env=environment).invoke(command, ["--burst"])
    assert done.stdout == "default: 0 decisions, 0 outcomes archived\n"
    assert len(read_log(str(tmp_path / "data" / "log"))) == 2


def test_a_version_that_missed_outcomes_takes_back_none_of_them(
    http: httpx.Client, redis_url: str, path: str
):
    """They were trimmed while it had no role: nobody can tell any more which of those that it has
    learned a correction is of."""
    drive(http, 10)
    learn_all(redis_url)
    with closing(LearnerStore(redis_url, "default")) as store:
        learned = store.checkpoint("1")
        assert learned is not None
        ids = drive(http, 5)
        learn_all(redis_url)
        archive_all(redis_url, path)
        store._redis.delete("pm:{default}:checkpoint:1")
        store.start("1", unpack(learned), unpack(learned))
        drive(http, 3)
        http.post(
            "/correction", json={"decision_id": ids[0], "quality": 0.9, "by": "me", "reason": "so"}
        )
        learn_all(redis_url)
        state = unpack(store.checkpoint("1") or b"")
    model = LinearModel.from_parts(state.parts)
    # Of the five, the last one stayed in the stream: it marks where that ends.
    assert (state.header.events, model.start_events) == (10 + 1 + 3, 10)


def test_rows_behind_an_open_one_are_not_valued(
    http: httpx.Client, redis_url: str, path: str, tmp_path: Path
):
    """Those that tell their reward early would decide alone."""
    drive(http, 6)
    http.post("/route", json={"query": {"text": "no reward yet"}})
    drive(http, 4)
    archive_all(redis_url, path)
    (tmp_path / "pointsman.toml").write_text(CONFIG)
    done = CliRunner().invoke(
        cli, ["evaluate", path, "--config", str(tmp_path / "pointsman.toml"), "--target", "logged"]
    )
    assert done.exit_code == 0, done.output
    assert "6 rows of policy default" in done.stdout
    assert "5 later rows are left out, from the first on that may still change" in done.stdout
