"""Several of a kind on one Redis, and what operators do to a service under traffic."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from serving.processes.embedded import running_url
from serving.store.operations import OperatorStore
from tests.faults import places
from tests.faults.conftest import Recovered
from tests.faults.places import PATIENT, Server, running
from tests.faults.traffic import PATIENCE_S, Traffic
from tests.faults.verifying import Recovery, verify
from tests.servers import CONFIG, NEW_ARM, override, running_up, until
from tests.serving.challenging import config
from tests.serving.test_connection import free_port

pytestmark = pytest.mark.faults

TWO = config('model = "linear"\n', 'model = "linear"\nfloor = 0.2\n')


def test_two_services_on_one_redis(tmp_path: Path, recovered: Recovered):
    """One learner and one archiver lead; where these hang, the others take over, and where they
    wake up again, thinking that they lead, they do no harm."""
    log = str(tmp_path / "log")
    with ExitStack() as stack:
        server = stack.enter_context(running(Server(tmp_path / "valkey", free_port())))
        shared = {"POINTSMAN_REDIS_URL": server.url, "POINTSMAN_LOG": log, **PATIENT}
        both = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            both.append(stack.enter_context(running_up(tmp_path / name, CONFIG, **shared)))
        with Traffic([str(http.base_url) for _, http in both], seed=2, pause_s=0.01) as traffic:
            traffic.reach(200)
            for process, http in (both[0], both[1], both[0]):
                recovery = Recovery(traffic.ledger, http, log)
                with ExitStack() as hanging:
                    for kind in ("learner", "archiver"):
                        hanging.enter_context(places.frozen(places.found(kind, process.pid)))
                    took = recovery.took()
                traffic.reach(traffic.ledger.acknowledged + 200)
            recovered(took)
        verify(traffic.ledger, server.url, log)
    assert traffic.ledger.answers.keys() == {200}


def test_promotion_and_rollback(tmp_path: Path):
    """Again and again, with a learner that dies meanwhile: both versions have learned all of it,
    and nobody is refused."""
    with running_up(tmp_path, TWO, **PATIENT) as (process, http):
        url, log = running_url(tmp_path / "data"), str(tmp_path / "data" / "log")
        with Traffic(str(http.base_url), seed=3, pause_s=0.01) as traffic:
            for turn in range(4):
                traffic.reach(traffic.ledger.acknowledged + 200)
                assert override(url, "2", keep_share=0.1) == "1"
                until(lambda: champion(http) == "2", "version 2 serves", PATIENCE_S)
                traffic.reach(traffic.ledger.acknowledged + 100)
                if turn % 2:
                    places.kill("learner", process.pid)
                with closing(OperatorStore(url, "default")) as store:
                    store.rollback("me", "tests say so", 0)
                until(lambda: champion(http) == "1", "version 1 serves", PATIENCE_S)
        verify(traffic.ledger, url, log, "1", "2")
    assert traffic.ledger.answers.keys() == {200}


def test_a_configuration_that_is_edited_badly(tmp_path: Path, recovered: Recovered):
    """All goes on with the one before, the log says so, and what dies meanwhile comes back with the
    one before as well; once the file is right again, it is in force."""
    path = tmp_path / "pointsman.toml"
    with running_up(tmp_path, CONFIG, POINTSMAN_FSYNC="always", **PATIENT) as (process, http):
        log = tmp_path / "data" / "log"
        with Traffic(str(http.base_url), seed=4, pause_s=0.01) as traffic:
            traffic.reach(200)
            for text in ("[[arms", CONFIG.replace("objective", "colour"), "\x00"):
                path.write_text(text)
                until(lambda: said(tmp_path, "the old one stays in force"), "it says so", 10.0)
                traffic.reach(traffic.ledger.acknowledged + 100)
            recovery = Recovery(traffic.ledger, http, str(log))
            for victim in ("learner", "archiver", "serving process", "watch"):
                places.kill(victim, process.pid)
            recovered(recovery.took())
            path.write_text(CONFIG.replace("[policies", f"{NEW_ARM}\n[policies"))
            until(lambda: "medium" in arms(http), "the new arm is there", PATIENCE_S)
            traffic.reach(traffic.ledger.acknowledged + 100)
        verify(traffic.ledger, running_url(tmp_path / "data"), str(log))
        assert any(arm == "medium" for arm, _ in traffic.ledger.decisions.values())


def champion(http: httpx.Client) -> str:
    return str(http.get("/policies/default").json()["champion"])


def arms(http: httpx.Client) -> set[str]:
    return {arm["arm"] for arm in http.get("/arms").json()["arms"]}


def said(folder: Path, words: str) -> bool:
    return words in (folder / "up.log").read_text()
