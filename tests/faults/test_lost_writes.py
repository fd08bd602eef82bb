"""An asynchronous failover loses what the replica hadn't got: no more than that, and nobody is
confused by it."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
import redis

from offline_eval.log import archive
from offline_eval.log.reading import read_rows
from offline_eval.log.segments import order
from serving.store.keys import Keys
from serving.store.learning import LearnerStore
from tests.faults.conftest import Recovered
from tests.faults.places import Server, behind_proxy, running
from tests.faults.proxy import Proxy
from tests.faults.traffic import Traffic
from tests.faults.verifying import PATIENCE_S, archived, position
from tests.servers import assert_same_state, fold_again, until
from tests.serving.test_connection import free_port

pytestmark = pytest.mark.faults


class Bereft(Traffic):
    """Takes it that a decision is no longer known."""

    asks_again = 0.0

    def _report(
        self,
        http: httpx.Client,
        about: dict[str, str],
        outcome: dict[str, float],
        rng: random.Random,
    ) -> None:
        if self._answer(http, "/reward", {**about, **outcome}, {200, 404}).status_code == 200:
            self.ledger.reports(about["decision_id"], outcome)


def test_a_failover_without_waiting(tmp_path: Path, recovered: Recovered):
    """The replica is a second behind when it takes over. What was acknowledged before and after is
    in log and state, once; of that second the log may have more than Redis, and says so."""
    with ExitStack() as stack:
        place = stack.enter_context(behind_proxy(tmp_path))
        link = Proxy(place.server.port)
        stack.callback(link.close)
        follows = f"127.0.0.1 {link.port}"
        server = Server(tmp_path / "replica", free_port(), replicaof=follows)
        replica = stack.enter_context(running(server)).client()
        stack.callback(replica.close)
        until(lambda: replica.info("replication")["master_link_status"] == "up", "it follows", 30)
        with Bereft(str(place.http.base_url), seed=6, pause_s=0.01) as traffic:
            ledger = traffic.ledger
            traffic.reach(400)
            recovery = place.recovery(traffic)
            before, reported = set(ledger.decisions), set(ledger.outcomes)
            time.sleep(0.5)
            with link.black_hole():
                time.sleep(1.0)
                place.server.kill()
                link.target = 0  # what it holds back is lost
                link.cut()
            replica.execute_command("REPLICAOF NO ONE")
            fell_ms = time.time_ns() // 1_000_000
            had = last(replica, "outcomes")
            time.sleep(1.0)
            between = set(ledger.decisions) - before
            place.proxy.target = server.port
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(ledger.acknowledged + 400)
        until(lambda: archived(replica, place.log), "the archiver comes to the end", PATIENCE_S)
        lost = {
            id_ for id_ in ledger.decisions if not replica.exists(Keys("default").decision(id_))
        }
        logged = [row.decision.decision_id for row in read_rows(place.log)]
        assert len(logged) == len(set(logged))
        assert lost
        assert lost <= between
        assert ledger.decisions.keys() - lost <= set(logged) <= ledger.decisions.keys()

        def came(entry: str) -> bool:
            """Whether the replica ever had it."""
            return order(entry) <= order(had) or order(entry)[0] > fell_ms

        events = [[e for e in some if came(e[0])] for some in archive.events(place.log, "default")]
        told = [event[b"decision_id"].decode() for some in events for _, event in some]
        assert len(told) == len(set(told))
        assert reported <= set(told)
        assert ledger.outcomes.keys() - set(told) <= between
        with closing(LearnerStore(server.url, "default")) as store:
            expected = fold_again(store, events)
            until(
                lambda: position(store.checkpoint("1")) == position(expected),
                "the learner comes to the end of the stream",
                PATIENCE_S,
            )
            assert_same_state(store.checkpoint("1"), expected)
        assert "Redis has lost outcomes that are archived" in (tmp_path / "up.log").read_text()


def last(client: redis.Redis, stream: str) -> str:
    """The id that a stream gave last."""
    found: bytes = client.xinfo_stream(f"pm:{{default}}:{stream}")["last-generated-id"]
    return found.decode()
