"""Any order of reports, repeated and contradicting ones, withdrawals and corrections, against a few
lines of Python: by HTTP on a real server, and in the rows of the log that the streams make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_eval.log.reading import read_rows
from pointsman.archiver import Window, archive_burst
from policy.records import Outcome
from serving.settings import Settings
from tests.fuzzing.damage import examples
from tests.servers import http_service, settings_for

WHO = {"by": "me", "reason": "why"}
COMPONENTS = ("quality", "latency_ms", "cost_usd")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "quality": st.sampled_from([0.0, 0.5, 1.0]),
    "latency_ms": st.sampled_from([10.0, 20.0]),
    "cost_usd": st.sampled_from([0.0, 0.01]),
}
OTHERS = {
    "error": st.sampled_from(["timeout", "wrong"]),
    "executed_arm": st.sampled_from(["small", "large"]),
    "ttft_ms": st.sampled_from([5.0, 6.0]),
}
REPORTS = st.fixed_dictionaries({}, optional=VALUES | OTHERS)
CORRECTIONS = st.fixed_dictionaries({}, optional=VALUES)
ACTIONS = st.one_of(
    st.tuples(st.just("/reward"), REPORTS),
    st.tuples(st.just("/reward"), st.just({"executed": False})),
    st.tuples(st.just("/correction"), CORRECTIONS),
)


@dataclass
class Model:
    """What must stand of one decision."""

    arm: str
    first: dict[str, Any] = field(default_factory=dict)  # as it was reported
    now: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    executed: bool | None = None
    executed_arm: str | None = None
    ttft_ms: float | None = None
    corrected: bool = False

    def reward(self, said: dict[str, Any]) -> int:
        """The status of the answer; nothing changes but with 200."""
        parts = {name: said[name] for name in COMPONENTS if name in said}
        failed, withdrawn = said.get("error"), said.get("executed") is False
        ttft_ms = said.get("ttft_ms")
        if not (parts or failed or withdrawn or ttft_ms) or (failed and said.get("quality")):
            return 422
        against = [self.first.get(name, value) != value for name, value in parts.items()]
        if failed:
            best = max(self.first.get("quality", 0.0), self.now.get("quality", 0.0))
            against += [self.error not in (None, failed), self.error is None and best > 0.0]
        elsewhere = said.get("executed_arm", self.executed_arm)
        against += [
            bool(self.error and "quality" not in self.first and said.get("quality")),
            withdrawn and self.executed is True,
            not withdrawn and self.executed is False,
            self.executed_arm not in (None, elsewhere),
            bool(ttft_ms) and self.ttft_ms not in (None, ttft_ms),
        ]
        if any(against):
            return 409
        fresh = {name: value for name, value in parts.items() if name not in self.first}
        news = bool(fresh) or (failed is not None and self.error is None)
        self.first |= fresh
        self.now |= fresh
        self.error = self.error or failed
        self.ttft_ms = self.ttft_ms or ttft_ms
        if withdrawn:
            self.executed = False
        elif news:
            self.executed, self.executed_arm = True, elsewhere or self.arm
        else:
            self.executed_arm = elsewhere
        return 200

    def correction(self, said: dict[str, Any]) -> int:
        if not said:
            return 422
        if self.executed is False or (self.error and said.get("quality")):
            return 409
        if not said.keys() <= self.now.keys():
            return 409
        self.corrected |= any(self.now[name] != value for name, value in said.items())
        self.now |= said
        return 200

    def shown(self) -> dict[str, Any]:
        """As GET /decisions/{id} has it."""
        changed = {f"reported_{n}": v for n, v in self.first.items() if n in self._overruled}
        shown = {**self.now, **changed}
        if self.error:
            shown["error"] = self.error
        return shown

    def __post_init__(self) -> None:
        self._overruled: set[str] = set()

    def act(self, path: str, said: dict[str, Any]) -> int:
        before = dict(self.now)
        status = self.reward(said) if path == "/reward" else self.correction(said)
        if path == "/correction":
            self._overruled |= {name for name in before if before[name] != self.now[name]}
        return status


@pytest.fixture(scope="module")
def settings(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(module_url, tmp_path_factory.mktemp("rewards"))


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[httpx.Client]:
    with http_service(settings) as client:
        yield client


@pytest.fixture(scope="module")
def stand() -> dict[str, Model]:
    """By decision: what the tests below have made of it."""
    return {}


def route(http: httpx.Client) -> tuple[str, Model]:
    made = http.post("/route", json={"query": {"text": "x"}}).json()
    return made["decision_id"], Model(made["arm"])


def test_any_order_of_reports_is_as_the_model_has_it(
    service: httpx.Client, stand: dict[str, Model]
):
    """Status by status, and all that stands afterwards."""

    @examples(25)
    @given(st.lists(ACTIONS, min_size=1, max_size=8))
    def check(actions: list[tuple[str, dict[str, Any]]]) -> None:
        decision_id, model = route(service)
        for path, said in actions:
            who = WHO if path == "/correction" else {}
            answer = service.post(path, json={"decision_id": decision_id, **who, **said})
            assert (answer.status_code, path, said) == (model.act(path, said), path, said)
        _assert_stands(service, decision_id, model)
        stand[decision_id] = model

    check()


def test_a_batch_is_as_its_reports_one_by_one(service: httpx.Client, stand: dict[str, Model]):
    """Of several decisions, mixed; each item is judged by itself."""

    @examples(15)
    @given(st.lists(st.tuples(st.integers(0, 1), REPORTS), min_size=1, max_size=8))
    def check(items: list[tuple[int, dict[str, Any]]]) -> None:
        both = [route(service), route(service)]
        rewards = [{"decision_id": both[i][0], **said} for i, said in items]
        results = service.post("/reward/batch", json={"rewards": rewards}).json()["results"]
        expected = [both[i][1].act("/reward", said) for i, said in items]
        assert [result.get("status", 200) for result in results] == expected
        for decision_id, model in both:
            _assert_stands(service, decision_id, model)
            stand[decision_id] = model

    check()


def test_the_log_has_a_row_of_each_as_the_model_has_it(settings: Settings, stand: dict[str, Model]):
    """Once the streams are archived: values that hold, those they replaced, the arm that ran."""
    assert stand
    assert settings.redis_url
    archive_burst(settings.redis_url, settings.log_path(), {"default": Window(0)})
    rows = {row.decision.decision_id: row.outcome for row in read_rows(settings.log_path())}
    assert rows.keys() == stand.keys()
    for decision_id, model in stand.items():
        assert _plain(rows[decision_id]) == _expected(model), decision_id


def _assert_stands(http: httpx.Client, decision_id: str, model: Model) -> None:
    outcome = http.get(f"/decisions/{decision_id}").json()["outcome"]
    names = {n for component in COMPONENTS for n in (component, f"reported_{component}")}
    assert {n: v for n, v in outcome.items() if n in {*names, "error"}} == model.shown()
    assert outcome.get("executed_arm", model.executed_arm) == model.executed_arm or (
        model.executed is False
    )


def _plain(outcome: Outcome) -> dict[str, Any]:
    names = [
        *COMPONENTS,
        "error",
        "executed",
        "corrected_by",
        *map("reported_{}".format, COMPONENTS),
    ]
    told = {name: getattr(outcome, name) for name in names}
    return {**told, "executed_arm": outcome.executed_arm}


def _expected(model: Model) -> dict[str, Any]:
    elsewhere = model.executed and model.executed_arm != model.arm
    other = model.executed_arm if elsewhere else None
    overruled = {n: model.first[n] if n in model._overruled else None for n in model.first}
    return {
        **{name: model.now.get(name) for name in COMPONENTS},
        "error": model.error,
        "executed": model.executed is not False,
        "corrected_by": WHO["by"] if model.corrected else None,
        **{f"reported_{name}": overruled.get(name) for name in COMPONENTS},
        "executed_arm": other,
    }
