"""`pointsman keys`, and who may come in without one."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from pointsman.commands import keys
from serving.access.opening import NotClosed, who_may_come_in
from serving.access.store import keys_at
from serving.processes import embedded
from serving.processes.embedded import FOLDER, Embedded
from serving.store.keys import ACCESS_AUDIT
from tests.faults.places import frozen
from tests.servers import CONFIG, http_service, main_of, running_up, settings_for, until
from tests.serving.access.making import bearing, known, make_key, now_ms

Run = Callable[..., Result]


@pytest.fixture
def run(redis_url: str) -> Run:
    def command(*words: str) -> Result:
        environment = {**os.environ, "POINTSMAN_REDIS_URL": redis_url}
        return CliRunner().invoke(keys.command, words, env=environment)

    return command


def test_a_secret_is_printed_once_and_alone(run: Run, raw: redis.Redis):
    """On stdout, for a pipe; what it is for goes to stderr. No list shows it again."""
    done = run("create", "app", "--scope", "route", "--scope", "reward:b,a", "--policy", "a")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"pm_[A-Za-z0-9_-]{43}\n", done.stdout)
    assert "for reward:a,b route:a" in done.stderr
    for words in (["list"], ["list", "--json"], ["list", "--audit"]):
        shown = run(*words).stdout
        assert "app" in shown
        assert done.stdout.strip() not in shown
    for _, entry in raw.xrange(ACCESS_AUDIT):
        assert done.stdout.strip()[3:].encode() not in b"".join(entry.values())


def test_json_is_one_object(run: Run):
    """The secret is in it where it is new."""
    made = json.loads(run("create", "app", "--scope", "read", "--expires", "90d", "--json").stdout)
    assert made["secret"].startswith("pm_")
    assert made["scopes"] == {"read": None}
    assert made["expires_at_ms"] == pytest.approx(now_ms() + 90 * 86_400_000, abs=60_000)
    (listed,) = json.loads(run("list", "--json").stdout)["keys"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert "digests" not in listed


def test_a_scope_that_is_given_twice_is_for_all_that_is_named(run: Run):
    """The last one doesn't replace those before it."""
    scopes = ("--scope", "route:c", "--scope", "route:b,a", "--scope", "read", "--scope", "read")
    made = json.loads(run("create", "app", *scopes, "--json").stdout)
    assert made["scopes"] == {"route": ["a", "b", "c"], "read": None}


def test_what_was_done_to_keys_is_recorded_with_who(run: Run):
    """Creation, rotation and revocation, in order."""
    run("create", "app", "--scope", "route")
    run("rotate", "app", "--overlap", "1h")
    run("revoke", "app")
    done = json.loads(run("list", "--audit", "--json").stdout)["audit"]
    assert [entry["kind"] for entry in done] == ["key created", "key rotated", "key revoked"]
    assert len({(entry["key"], entry["name"]) for entry in done}) == 1
    assert all(entry["who"] for entry in done)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "app"], "--scope"),
        (["create", "app", "--scope", "write"], "a scope is one of route, reward, correct, read"),
        (["create", "app", "--scope", "read:a", "--scope", "read"], "named, or for all"),
        (["create", "app", "--scope", "read", "--scope", "read:a"], "named, or for all"),
        (["create", "a b", "--scope", "read"], "a name has 1 to 64"),
        (["create", "app", "--scope", "read", "--policy", "a:b"], "can't be the name of a policy"),
        (["create", "app", "--scope", "read", "--expires", "2020-01-01"], "is over already"),
        (["create", "app", "--scope", "read", "--expires", "soon"], "expected a time"),
        *[
            (["create", "app", "--scope", "read", "--expires", given], said)
            for given, said in (
                ("0s", "expected a duration of some length"),
                ("3000000d", "before the year 10000"),
                ("99999999999999d", "before the year 10000"),
                ("9" * 16 + "s", "expected a duration"),
                ("9" * 20, "before the year 10000"),
                ("\u0663d", "expected a duration"),
            )
        ],
        (
            ["create", "app", "--scope", "read", "--requests-per-minute", "9" * 20],
            "not in the range",
        ),
        (["rotate", "app", "--overlap", "3000000d"], "before the year 10000"),
        (["rotate", "app", "--overlap", "1w"], "expected a duration"),
        (["rotate", "app"], "there is no key 'app'"),
        (["revoke", "app"], "there is no key 'app'"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, words: list[str], said: str):
    """And nothing is made of them."""
    done = run(*words)
    assert done.exit_code != 0
    assert said in done.output + str(done.exception)
    assert json.loads(run("list", "--json").stdout) == {"keys": []}


def test_a_key_that_ends_at_the_end_of_the_calendar_is_shown(run: Run):
    """The longest time that is taken can be shown again; an old secret may end at once."""
    words = ("--scope", "read", "--expires", "9999-12-31T23:59:59")
    assert run("create", "app", *words, "--requests-per-minute", "1000000000").exit_code == 0
    assert run("rotate", "app", "--overlap", "0s").exit_code == 0
    assert "9999-12-31 23:59" in run("list").stdout


def test_names_are_unique_until_revoked(run: Run):
    """So that a name says which key is meant."""
    assert run("create", "app", "--scope", "read").exit_code == 0
    again = run("create", "app", "--scope", "read")
    assert again.exit_code == 1
    assert "there is a key 'app' already" in str(again.exception)
    run("revoke", "app")
    assert run("create", "app", "--scope", "read").exit_code == 0


def test_without_keys_it_listens_on_loopback_only():
    """Or anywhere, where somebody has said so; with keys anywhere."""
    loopback = who_may_come_in([], "127.0.0.1", 80, anybody=False, now_ms=0)
    assert loopback.startswith("no keys: whoever is on this machine may do everything")
    with pytest.raises(NotClosed, match=r"--open"):
        who_may_come_in([], "0.0.0.0", 80, anybody=False, now_ms=0)
    assert "--open: whoever reaches 0.0.0.0:80" in who_may_come_in(
        [], "0.0.0.0", 80, anybody=True, now_ms=0
    )


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_service_that_anybody_could_reach_does_not_start(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    """One line says why and what to do."""
    settings = settings_for(redis_url, tmp_path)
    for name, value in (settings.environment() | {"POINTSMAN_HOST": "0.0.0.0"}).items():
        monkeypatch.setenv(name, value)
    assert main_of(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "`pointsman keys create` makes the first; --open allows it" in line


@pytest.mark.parametrize("anybody", [True, False])
def test_a_process_by_itself_heeds_it_too(redis_url: str, tmp_path: Path, anybody: bool):
    """However it was started: beyond loopback it answers nobody without a key, unless told to."""
    settings = settings_for(redis_url, tmp_path)
    settings = settings.model_copy(update={"host": "0.0.0.0", "open": anybody})
    with http_service(settings) as http:
        assert http.get("/arms").status_code == (200 if anybody else 401)
        _, secret = make_key(redis_url)
        until(lambda: http.get("/arms").status_code == 401, "keys are wanted", 5.0)
        known(http, secret)
        assert http.get("/arms", headers=bearing(secret)).status_code == 200


def on(data: Path) -> Run:
    """`pointsman keys` for the embedded server of this folder."""
    environment = {**os.environ, "POINTSMAN_DATA": str(data)}
    return lambda *words: CliRunner().invoke(keys.command, words, env=environment)


def test_keys_before_the_service_first_runs(tmp_path: Path):
    """In the embedded server's files, with a server for the moment; beside one that runs, there."""
    run = on(tmp_path)
    assert run("create", "app", "--scope", "read").exit_code == 0
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    files = [path for path in (tmp_path / FOLDER / "appendonlydir").iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    assert [key["name"] for key in json.loads(run("list", "--json").stdout)["keys"]] == ["app"]
    server = Embedded(tmp_path / FOLDER, fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        assert run("revoke", "app").exit_code == 0
        (key,) = asyncio.run(keys_at(server.url))
    finally:
        server.stop()
    assert key.invalid(now_ms()) == "was revoked"


def test_a_server_that_does_not_answer_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Silence isn't absence: no command starts a second server on its files, and none says that it
    did anything. Once it answers again all of them work."""
    config = tmp_path / "pointsman.toml"
    config.write_text(CONFIG)
    monkeypatch.setenv("POINTSMAN_DATA", str(tmp_path))
    monkeypatch.setenv("POINTSMAN_CONFIG", str(config))
    monkeypatch.setattr(embedded, "STOP_S", 0.2)  # how long `up` waits for one that ends
    server = Embedded(tmp_path / FOLDER, fsync="everysec", max_memory_mb=64)
    server.start()

    def files() -> dict[str, tuple[int, int]]:
        found = ((str(path), path.stat()) for path in sorted((tmp_path / FOLDER).rglob("*")))
        return {name: (stat.st_ino, stat.st_size) for name, stat in found}

    try:
        run = on(tmp_path)
        assert run("create", "app", "--scope", "read").exit_code == 0
        before = files()
        with frozen(server.pid):
            for words in (
                ("keys", "list"),
                ("keys", "create", "b", "--scope", "read"),
                ("keys", "revoke", "app"),
                ("up", "--port", "0"),
                ("doctor",),
            ):
                assert main_of(*words) == 1
                told = capsys.readouterr()
                said = f"the server of {tmp_path / FOLDER} runs, but doesn't answer"
                assert said in told.out + told.err
                if words[0] == "keys":
                    assert (told.out, told.err) == ("", f"pointsman: {said}\n")
            assert files() == before
        assert [key.invalid(now_ms()) for key in asyncio.run(keys_at(server.url))] == [None]
        assert run("revoke", "app").exit_code == 0
    finally:
        server.stop()
    assert run("create", "app", "--scope", "read").exit_code == 0  # none runs: one for the moment


@pytest.mark.slow
def test_a_service_that_begins_with_a_key_may_listen_anywhere(tmp_path: Path):
    """From its first request on it wants one; commands act on it while it runs."""
    run = on(tmp_path / "data")
    secret = run("create", "app", "--scope", "read").stdout.strip()
    (tmp_path / "pointsman.toml").write_text(CONFIG)
    with running_up(tmp_path, CONFIG, POINTSMAN_HOST="0.0.0.0") as (_, http):
        assert http.get("/arms").status_code == 401
        assert http.get("/arms", headers=bearing(secret)).status_code == 200
        assert run("revoke", "app").exit_code == 0
        until(lambda: http.get("/arms", headers=bearing(secret)).status_code == 401, "it ends")
    assert "every request needs a key: 1 of 1 are valid" in (tmp_path / "up.log").read_text()
