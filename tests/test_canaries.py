"""Query text and secrets come into nothing that is written: no record, log, error, figure.

What is sent, and how it is looked for, is in tests/canaries.py.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from click.testing import CliRunner

from pointsman.commands import keys
from pointsman_client import Client, PointsmanError
from serving.access.scopes import SCOPES
from serving.processes.embedded import Embedded
from tests.canaries import KEPT, SECRETS, TEXT, bodies, found_in, hints, query, written
from tests.servers import CONFIG, main_of, running_up, settings_for, until
from tests.serving.observing.receiver import EXPORTER, receiving

KEEPS = '[policies.keeps]\nstore_text = true\nmodel = "uniform"\n'
PROVIDER = 'endpoints = [{url = "http://127.0.0.1:9/v1", api_key_env = "CANARY_API_KEY"}]\n'
ALL = {**TEXT, **SECRETS}


@dataclass
class Written:
    """What a service has answered and left behind, once it is gone."""

    folder: Path
    answers: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)  # of what asks for stored text
    secrets: dict[str, str] = field(default_factory=dict)
    spans: list[bytes] = field(default_factory=list)

    def note(self, answer: httpx.Response) -> httpx.Response:
        head = str(answer.headers).encode()
        into = self.kept if "/decisions/kept" in str(answer.request.url) else self.answers
        into.append(head + answer.content)
        return answer


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """All that `pointsman up` does with all that is sent to it, then without Redis."""
    found = Written(tmp_path_factory.mktemp("canaries"))
    server = Embedded(found.folder / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", SECRETS["redis"])
    url = server.url.replace("://", f"://:{SECRETS['redis']}@")
    config = CONFIG.replace('"tools"]', f'"tools", "json"]\n{PROVIDER}') + KEEPS
    settings = {
        "POINTSMAN_REDIS_URL": url,
        "POINTSMAN_DATA": str(found.folder / "data"),
        "POINTSMAN_CONFIG": str(found.folder / "pointsman.toml"),
    }
    (found.folder / "pointsman.toml").write_text(config)
    found.secrets = {scope: _made_key(settings, scope) for scope in SCOPES}
    try:
        with (
            receiving() as receiver,
            running_up(
                found.folder,
                config,
                **settings,
                CANARY_API_KEY=SECRETS["provider"],
                POINTSMAN_ACCESS_LOG="true",
                POINTSMAN_DEGRADED="serve",
                POINTSMAN_STORE_TIMEOUT_MS="5000",
                POINTSMAN_TOKEN_SECRET=SECRETS["token"],
                POINTSMAN_ARCHIVE_INTERVAL_S="0.2",
                POINTSMAN_CHECKPOINT_INTERVAL_S="0.2",
                MLFLOW_TRACKING_URI=f"http://me:{SECRETS['mlflow']}@127.0.0.1:9",
                OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                OTEL_BSP_SCHEDULE_DELAY="100",
            ) as (_, http),
        ):
            found.spans = receiver.bodies
            _send(http, found)
            until(lambda: list(found.folder.rglob("*.parquet")), "something is archived")
            server.stop()
            _send_without_redis(http, found)
    finally:
        server.stop()
    return found


def _made_key(settings: Mapping[str, str], scope: str) -> str:
    done = CliRunner().invoke(
        keys.command, ["create", f"for-{scope}", "--scope", scope], env=dict(settings)
    )
    assert done.exit_code == 0, done.output
    return next(word for word in done.output.split() if word.startswith("pm_"))


def _as(found: Written, scope: str) -> dict[str, str]:
    return {"authorization": f"Bearer {found.secrets[scope]}"}


def _send(http: httpx.Client, found: Written) -> None:
    """Everything, well and badly, by every door."""
    note, route = found.note, _as(found, "route")
    document = note(http.get("/openapi.json", headers=_as(found, "read"))).json()
    good = {"decision_id": "good", "query": query(), "hints": hints()}
    assert note(http.post("/route", json=good, headers=route)).status_code == 200
    assert note(http.post("/route", json=good | {"query": {"text": "x"}}, headers=route)).is_error
    kept = {"policy": "keeps", "decision_id": "kept", "query": {"text": KEPT}}
    assert note(http.post("/route", json=kept, headers=route)).status_code == 200
    for reward in ({"quality": 1.0}, {"quality": 0.5}):
        given = {"decision_id": "good", **reward}
        note(http.post("/reward", json=given, headers=_as(found, "reward")))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _walk(http, found, document, method, path, operation)
    for raw in _broken():
        for path in ("/route", "/route/batch", "/reward", "/decisions", "/correction"):
            for headers in raw[1:]:
                note(http.post(path, content=raw[0], headers={**route, **headers}))
    for headers in _wrong_keys():
        for path in ("/route", "/metrics", "/decisions/good", "/nowhere"):
            note(http.get(path, headers=headers))
    note(http.get("/policies", params={"key": SECRETS["parameter"]}, headers=_as(found, "read")))
    note(
        http.get(
            "/policies/default/frontier",
            params={"probability": TEXT["number"]},
            headers=_as(found, "read"),
        )
    )
    for name, policy in (("good", "default"), ("kept", "keeps")):
        where = {"policy": policy}
        shown = http.get(f"/decisions/{name}", params=where, headers=_as(found, "read"))
        assert note(shown).status_code == 200


def _walk(
    http: httpx.Client,
    found: Written,
    document: Mapping[str, Any],
    method: str,
    path: str,
    operation: Mapping[str, Any],
) -> None:
    """Each body of one operation, with the key that it needs; a batch holds all that its single
    one takes."""
    filled = path.replace("{decision_id}", "good").replace("{name}", "default")
    if method == "get":
        for scope in SCOPES:
            found.note(http.get(filled, headers=_as(found, scope)))
        return
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    whole = {"query": {"text": TEXT["text"]}, "decision_id": "good"}
    all_of = list(bodies(document, schema))
    assert all_of, f"{path} has a body that nobody can fill: describe it in the document"
    if path.endswith("/batch"):
        one = document["paths"][path.removesuffix("/batch")][method]["requestBody"]["content"]
        single = list(bodies(document, one["application/json"]["schema"]))
        lists = [name for name, inner in _properties(document, schema).items() if _is_list(inner)]
        all_of += [{name: [*single, {**whole, **single[0]}]} for name in lists]
    for body in all_of:
        for scope in SCOPES[:3]:
            answer = found.note(
                http.request(method, filled, json=whole | body, headers=_as(found, scope))
            )
            if answer.status_code != 403:
                break


def _properties(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema["$ref"].rpartition("/")[2]
    properties: Mapping[str, Any] = document["components"]["schemas"][name]["properties"]
    return properties


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array"


def _broken() -> Iterator[tuple[Any, ...]]:
    """Bodies that are none, each with its headers."""
    text = json.dumps({"query": {"text": TEXT["broken"]}}).encode()
    twice = b'{"%b": 1, "%b": 2}' % ((TEXT["key"].encode(),) * 2)
    packed = {"content-encoding": "gzip"}
    yield text[:-3], {}, packed
    yield TEXT["broken"].encode(), {}
    yield twice, {}
    yield b'{"query": {"text": %b}}' % TEXT["broken"].encode(), {}
    yield gzip.compress(text)[:-9], packed
    yield text, {"content-encoding": TEXT["broken"]}
    yield text + b" " * 17_000_000, {}


def _wrong_keys() -> Iterator[dict[str, str]]:
    yield {"authorization": f"Bearer {SECRETS['unknown key']}"}
    yield {"authorization": SECRETS["unknown key"]}
    yield {"authorization": f"Digest {SECRETS['basic']}"}
    client = httpx.BasicAuth("me", SECRETS["basic"])
    yield {"authorization": str(client._auth_header)}


def _send_without_redis(http: httpx.Client, found: Written) -> None:
    """Answered from the last snapshot, with a token, or not at all."""
    for scope, path in (("route", "/route"), ("reward", "/reward"), ("read", "/decisions/good")):
        body = {"decision_id": "gone", "query": query(), "hints": hints(), "quality": 1.0}
        method = "GET" if path.startswith("/decisions") else "POST"
        found.note(http.request(method, path, json=body, headers=_as(found, scope)))
    time.sleep(0.5)  # the processes that follow Redis say that it is gone


def test_text_and_secrets_are_in_no_answer(left: Written):
    """A caller's mistake is told by the field's name, not by what stood there."""
    assert len(left.answers) > 300
    for answer in left.answers:
        assert not found_in(answer, {**ALL, "kept": KEPT, **left.secrets}), answer[:2_000]


def test_text_and_secrets_are_in_no_file(left: Written):
    """Of Redis, log and data folder, on standard error: anywhere, but for stored text."""
    files = dict(written(left.folder))
    assert {"up.log", "valkey/valkey.log"} <= files.keys()
    assert any(name.startswith("data/log/") for name in files)
    assert any("appendonly" in name for name in files)
    assert b"/route" in files["up.log"]  # so the requests were told of
    for name, data in files.items():
        assert not found_in(data, {**ALL, **left.secrets}), name


def test_text_and_secrets_are_in_no_span(left: Written):
    """Where OpenTelemetry is installed: of all that was sent to its collector."""
    pytest.importorskip(EXPORTER, reason="pointsman[tracing] is not installed")
    assert b"POST /route" in b"".join(left.spans)
    for body in left.spans:
        assert not found_in(body, {**ALL, "kept": KEPT, **left.secrets})


def test_text_that_is_to_be_stored_is_where_the_docs_say(left: Written):
    """With `store_text` in the decision's record, in Redis and log, and nowhere else."""
    homes = {
        name.partition("/day=")[0]
        for name, data in written(left.folder)
        if found_in(data, {"": KEPT})
    }
    in_redis = {name for name in homes if name.startswith("valkey/appendonlydir/")}
    assert in_redis
    assert homes - in_redis == {"data/log/decisions/policy=keeps"}
    (shown,) = left.kept
    assert json.loads(shown[shown.index(b'{"decision"') :])["decision"]["query"] == KEPT


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:{}@127.0.0.1:1",
        "redis://me:{}@127.0.0.1:port",
        "redis://me:{}@nowhere.invalid/0",
        "rediss://me:{}@127.0.0.1:1/x",
        "unix://me:{}@/nowhere/s",
        "redis+cluster://me:{}@127.0.0.1:1",
        "redis+sentinel://me:{}@127.0.0.1:1/service/0",
        "other://me:{}@127.0.0.1:1",
        "{}",
        "me:{}@127.0.0.1:6379",
    ],
)
@pytest.mark.parametrize("name", ["status", "serve", "keys"])
def test_a_wrong_address_of_redis_is_told_without_its_password(
    url: str, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Whatever is wrong with it, and whichever command is told."""
    settings_for("unused", tmp_path)
    env = {
        "POINTSMAN_REDIS_URL": url.format(SECRETS["redis"]),
        "POINTSMAN_CONFIG": str(tmp_path / "pointsman.toml"),
        "POINTSMAN_DATA": str(tmp_path),
        "POINTSMAN_STORE_TIMEOUT_MS": "50",
    }
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in env.items():
            patch.setenv(variable, value)
        assert main_of(name, *(["list"] if name == "keys" else [])) != 0
    told = "".join(capfd.readouterr())
    assert told
    assert not found_in(told.encode(), SECRETS)


def test_the_client_tells_of_no_key(caplog: pytest.LogCaptureFixture):
    """Neither where nobody answers, nor in what it is shown as."""
    client = Client("http://127.0.0.1:1", api_key=SECRETS["unknown key"], retries=0)
    with client, pytest.raises(PointsmanError) as refused:
        client.route(TEXT["text"])
    told = f"{refused.value!r} {refused.value} {client!r} {vars(refused.value)} {caplog.text}"
    assert not found_in(told.encode(), ALL)
