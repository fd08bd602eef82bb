"""`pointsman frontier`, and what it asks, against a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from pointsman import plots
from pointsman.commands.frontier import command
from pointsman_client import Client
from serving.routes.schemas import FrontierBody
from tests.servers import drive, http_service, learn_all, settings_for, until


@pytest.fixture
def http(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that has learned from 40 outcomes."""
    with http_service(settings_for(redis_url, tmp_path)) as http:
        drive(http, 40, quality=0.7, latency_ms=800, cost_usd=0.001)
        learn_all(redis_url)
        until(lambda: http.get("/policies/default").json()["events"] == 40, "it is served")
        yield http


def run(http: httpx.Client, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["default", *arguments, "--url", str(http.base_url)])


def test_the_service_answers_what_is_declared(http: httpx.Client):
    """Per task type that some arm can serve; embeddings are another arm's; lengths count."""
    body = http.get("/policies/default/frontier").json()
    told = FrontierBody.model_validate(body)
    assert told.events == 40
    tasks = {one.task_type: one for one in told.task_types}
    assert {arm.arm for arm in tasks["code"].arms} == {"small", "large"}
    assert {arm.arm for arm in tasks["embedding"].arms} == {"embedder"}
    large = next(arm for arm in tasks["code"].arms if arm.arm == "large")
    assert large.quality.low < large.quality.mean < large.quality.high  # type: ignore[operator]
    assert {"own", "ultra_fast", "fast", "balanced", "quality", "cheap"} <= {
        point.name for point in tasks["code"].policies
    }
    only = {"task_type": ["mine", "code"], "context_tokens": 9_000, "probability": 0.5}
    narrow = http.get("/policies/default/frontier", params=only).json()
    assert [one["task_type"] for one in narrow["task_types"]] == ["mine", "code"]
    assert [arm["arm"] for arm in narrow["task_types"][0]["arms"]] == ["large"]
    with Client(str(http.base_url)) as client:
        assert client.frontier() == body


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"probability": 1}, "probability: should be less than 1"),
        ({"context_tokens": -1}, "context_tokens: should be greater than or equal to 0"),
        ({"task_type": ["code", ""]}, "task_type.1: should have at least 1 character"),
    ],
)
def test_what_makes_no_sense_is_a_problem(http: httpx.Client, params: dict[str, Any], says: str):
    """One that names the parameter; an unknown policy is a 404."""
    answer = http.get("/policies/default/frontier", params=params)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert http.get("/policies/nobody/frontier").status_code == 404


def test_the_command_shows_and_draws_it(http: httpx.Client, tmp_path: Path):
    """Arms that no other beats and the presets, with intervals; as JSON what the service says; and
    a picture."""
    picture = tmp_path / "frontier.png"
    done = run(http, "--task", "code", "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert "40 outcomes learned" in done.stdout
    assert "code" in done.stdout
    assert "math" not in done.stdout
    body = http.get("/policies/default/frontier").json()
    code = next(one for one in body["task_types"] if one["task_type"] == "code")
    for arm in code["arms"]:
        assert (f"\n  {arm['arm']} " in done.stdout) == arm["best"]
    for name in ("own", "ultra_fast", "fast", "balanced", "quality", "cheap"):
        assert f"\n  policy, {name} " in done.stdout
    assert " to " in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(run(http, "--json").stdout) == body
    whole = run(http, "--all").stdout
    assert "aren't shown" not in whole
    assert all(f"\n  {arm['arm']} " in whole for arm in code["arms"])


def test_the_picture_has_a_panel_per_task_type(http: httpx.Client):
    """Of those whose quality is known of some arm; nothing learned is no picture, and no fault."""
    body = http.get("/policies/default/frontier").json()
    figure = plots.frontier(body)
    titles = [axes.get_title() for axes in figure.axes]
    assert {one["task_type"] for one in body["task_types"]} <= set(titles)
    plots.png(figure)
    for task in body["task_types"]:
        for point in (*task["arms"], *task["policies"]):
            point["quality"] = {"mean": None, "low": None, "high": None}
    plots.png(plots.frontier(body))


def test_a_service_that_is_not_there_is_told():
    """One line, and exit code 1."""
    done = CliRunner().invoke(command, ["default", "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert "Error: " in done.output
