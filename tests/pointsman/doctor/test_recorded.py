"""What `pointsman doctor` says of MLflow against Redis, on a real store of each, and mends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from offline_eval.registry import Evaluation, Registry
from pointsman.doctor.recorded import checked
from pointsman.promotion.roles import record_of
from serving.settings import Settings
from serving.store.operations import OperatorStore
from serving.store.registered import GateRecord
from tests.servers import CONFIG, http_service, settings_for

TWO = CONFIG + '[policies.default.challenger]\nmodel = "uniform"\n'


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> Iterator[OperatorStore]:
    """Of a policy with a champion and a challenger."""
    settings: Settings = settings_for(redis_url, tmp_path, TWO)
    with http_service(settings), closing(OperatorStore(redis_url, "default")) as store:
        yield store


def told(store: OperatorStore, uri: str, *, mend: bool = False) -> list[tuple[str, str, str]]:
    return [tuple(finding[1:]) for finding in checked(store, uri, "default", mend=mend)]


def test_where_nothing_was_evaluated_nothing_is_missing(store: OperatorStore, tmp_path: Path):
    """And no store is made by looking for it."""
    there = tmp_path / "none" / "mlflow.db"
    assert told(store, f"sqlite:///{there}") == [("ok", "default: nothing was evaluated yet", "")]
    assert not there.parent.exists()


def test_what_mlflow_lacks_is_told_and_mended(store: OperatorStore, mlflow_uri: str):
    """Versions, a verdict and roles; once mended, MLflow has them and nothing is left to say."""
    store.record_gate("2", GateRecord("pass", "1", None, ("better by 0.1",)), 1_700_000_000_000)
    missing = [what for level, what, do in told(store, mlflow_uri) if level == "warning" and do]
    assert missing == [
        "default: MLflow doesn't know version 1",
        "default: MLflow doesn't know version 2",
        "default: MLflow doesn't have the verdict on version 2 (pass)",
    ]
    mended = told(store, mlflow_uri, mend=True)
    assert {level for level, *_ in mended} == {"ok"}
    assert len(mended) == 3
    assert told(store, mlflow_uri) == [("ok", "default: MLflow knows what Redis does", "")]
    listed = {one.version: one for one in Registry(mlflow_uri).versions("default")}
    assert (listed["1"].aliases, listed["2"].aliases) == (("champion",), ("challenger",))
    assert (listed["2"].verdict, listed["2"].champion) == ("pass", "1")


def test_roles_that_have_changed_are_told_and_mended(store: OperatorStore, mlflow_uri: str):
    """As when MLflow couldn't be reached at a promotion."""
    store.record_gate("2", GateRecord("pass", "1", None, ()), 1_700_000_000_000)
    told(store, mlflow_uri, mend=True)
    store.promote("2", "me", "why", 0, max_age_ms=0, override=True, keep_share=0.0)
    assert told(store, mlflow_uri)[0][1].endswith(
        "aliases aren't the roles: champion, challenger, previous"
    )
    told(store, mlflow_uri, mend=True)
    listed = {one.version: one.aliases for one in Registry(mlflow_uri).versions("default")}
    assert listed == {"1": ("challenger", "previous"), "2": ("champion",)}


def test_a_verdict_that_redis_lacks_makes_no_champion(store: OperatorStore, mlflow_uri: str):
    """Redis decides what serves: it is told, and never taken over."""
    registry = Registry(mlflow_uri)
    for version in ("1", "2"):
        registry.log_version(record_of(store, "default", version))
    registry.log_evaluation("default", "2", Evaluation(1_700_000_000_000, "1", "pass"))
    found = [one for one in told(store, mlflow_uri, mend=True) if one[0] == "warning"]
    assert [(what, do) for _, what, do in found] == [
        (
            "default: MLflow has a verdict on version 2 (pass) that Redis lacks",
            "`pointsman gate default 2` judges it anew",
        )
    ]
    assert store.versions()[1].gate is None


def test_versions_of_an_emptied_redis_are_told(
    store: OperatorStore, mlflow_uri: str, raw: redis.Redis
):
    """The same number with another configuration is another version."""
    registry = Registry(mlflow_uri)
    registry.log_version(record_of(store, "default", "2"))
    raw.hset("pm:{default}:version:2", "config", raw.hget("pm:{default}:version:1", "config"))
    assert any("Redis doesn't know: 2" in what for _, what, _ in told(store, mlflow_uri))


def test_mlflow_that_cannot_be_used_is_a_warning(store: OperatorStore, tmp_path: Path):
    """Serving doesn't need it."""
    (tmp_path / "text.db").write_text("no database")
    ((level, what, _),) = told(store, f"sqlite:///{tmp_path}/text.db")
    assert (level, "no SQLite database" in what) == ("warning", True)
