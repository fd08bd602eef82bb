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
from tests.faults.places import Behind, Server, behind_proxy, running
from tests.faults.proxy import Proxy
from tests.faults.test_several import arms
from tests.faults.traffic import Ledger, Traffic
from tests.faults.verifying import PATIENCE_S, archived, assert_learned_once
from tests.servers import CONFIG, NEW_ARM, until
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
    """The replica is seconds behind when it takes over. What was acknowledged before and after is
    in log and state, once; of these seconds the log may have more than Redis, and says so. A new
    arm that the configuration got meanwhile is known again."""
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
            had, fell_ms = fail_over(place, link, replica, tmp_path / "pointsman.toml")
            time.sleep(1.0)
            between = set(ledger.decisions) - before
            place.proxy.target = server.port
            recovery.restart()
            recovered(recovery.took())
            traffic.reach(ledger.acknowledged + 400)
        until(lambda: archived(replica, place.log), "the archiver comes to the end", PATIENCE_S)
        lost = set(ledger.decisions) - known(replica, ledger)
        logged = [row.decision.decision_id for row in read_rows(place.log)]
        assert len(logged) == len(set(logged))
        assert lost
        assert lost <= between
        assert set(ledger.decisions) - lost <= set(logged) <= set(ledger.decisions)

        def came(entry: str) -> bool:
            """Whether the replica ever had it."""
            return order(entry) <= order(had) or order(entry)[0] > fell_ms

        events = [[e for e in some if came(e[0])] for some in archive.events(place.log, "default")]
        told = [event[b"decision_id"].decode() for some in events for _, event in some]
        assert len(told) == len(set(told))
        assert reported <= set(told)
        assert ledger.outcomes.keys() - set(told) <= between
        with closing(LearnerStore(server.url, "default")) as store:
            assert_learned_once(events, store)
        assert any(arm == "medium" for arm, _ in ledger.decisions.values())
        assert "Redis has lost outcomes that are archived" in (tmp_path / "up.log").read_text()


def fail_over(place: Behind, link: Proxy, replica: redis.Redis, path: Path) -> tuple[str, int]:
    """Let the master die while the replica doesn't hear of what it writes, an arm among it; the
    last outcome that the replica has, and when (ms) it takes over."""
    with link.black_hole():
        path.write_text(CONFIG.replace("[policies", f"{NEW_ARM}\n[policies"))
        until(lambda: "medium" in arms(place.http), "the new arm serves", 10.0)
        time.sleep(0.5)
        place.server.kill()
        link.target = 0  # what it holds back is lost
        link.cut()
    replica.execute_command("REPLICAOF NO ONE")
    return last(replica, "outcomes"), time.time_ns() // 1_000_000


def known(client: redis.Redis, ledger: Ledger) -> set[str]:
    """The decisions of which there is a record."""
    key_of = Keys("default").decision
    return {id_ for id_ in ledger.decisions if client.exists(key_of(id_))}


def last(client: redis.Redis, stream: str) -> str:
    """The id that a stream gave last."""
    found: bytes = client.xinfo_stream(f"pm:{{default}}:{stream}")["last-generated-id"]
    return found.decode()
