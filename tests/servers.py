"""Real servers for tests: HTTP on loopback, one learner at hand, whole services. No fakes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from features.encoder import Encoder
from pointsman.cli import main
from policy.arms.catalog import Catalog
from policy.config.versions import read_config
from policy.values.linear.model import LinearModel
from policy.values.snapshot import unpack
from serving.app import create_app
from serving.learning.fold import Fold
from serving.learning.learner import Learner
from serving.observing.access_log import as_asked
from serving.processes.front import config_of
from serving.processes.up import listen
from serving.settings import Settings
from serving.store.keys import Entry
from serving.store.learning import LearnerStore
from serving.store.operations import OperatorStore

CONFIG = """
[[arms]]
id = "small"
provider = "local"
model = "small-8b"
context_window_tokens = 8192
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.2
prices_checked = 2026-01-01
prices_source = "made up for tests"

[[arms]]
id = "large"
provider = "hosted"
model = "large-400b"
context_window_tokens = 128000
usd_per_mtok_in = 3.0
usd_per_mtok_out = 15.0
prices_checked = 2026-01-01
prices_source = "made up for tests"
capabilities = ["chat", "vision", "tools"]

[[arms]]
id = "embedder"
provider = "local"
model = "embed-4b"
context_window_tokens = 32000
usd_per_mtok_in = 0.02
usd_per_mtok_out = 0.0
prices_checked = 2026-01-01
prices_source = "made up for tests"
capabilities = ["embeddings"]

[policies.default]
objective = { quality = 0.8, latency = 0.1, cost = 0.1, cost_ref_usd = 0.01 }
"""

NEW_ARM = """
[[arms]]
id = "medium"
provider = "hosted"
model = "medium-70b"
context_window_tokens = 64000
usd_per_mtok_in = 0.5
usd_per_mtok_out = 1.0
prices_checked = 2026-01-01
prices_source = "made up for tests"
"""


@contextmanager
def http_service(settings: Settings, app: FastAPI | None = None) -> Iterator[httpx.Client]:
    """The application (this one, where it is given) on a real socket, in a thread of this process;
    a client for it."""
    listener = listen(settings)
    server = uvicorn.Server(config_of(settings, as_asked(settings, app or create_app(settings))))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the service starts")
        port = listener.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10.0)
        listener.close()


def main_of(*arguments: str) -> int:
    """The exit status of `pointsman ...`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pointsman", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


@contextmanager
def running_up(
    folder: Path, config: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`pointsman up` on a folder, once it is ready; what it logs is in up.log there."""
    with closing(listen(settings_for("unused", folder, config))) as probe:
        port = environment.pop("POINTSMAN_PORT", str(probe.getsockname()[1]))
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pointsman", "up"],
            env={
                **os.environ,
                "POINTSMAN_PORT": port,
                "POINTSMAN_DATA": str(folder / "data"),
                "POINTSMAN_CONFIG": str(folder / "pointsman.toml"),
                "POINTSMAN_DRAIN_S": "0",  # nobody balances load between services here
                **environment,
            },
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            until(lambda: ready(client), "the service is ready", 120.0)
            yield process, client
    finally:
        process.terminate()
        process.wait(20.0)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def settings_for(redis_url: str, folder: Path, config: str = CONFIG, **more: object) -> Settings:
    path = folder / "pointsman.toml"
    path.write_text(config)
    patient = {"store_timeout_ms": 10_000, **more}  # the machine may be busy
    given = {"redis_url": redis_url, "config": path, "data": folder}
    return Settings(host="127.0.0.1", port=0, **given, **patient)


def drive(http: httpx.Client, rounds: int, **parts: Any) -> list[str]:
    """Route and report `rounds` times; the decision ids."""
    ids = []
    for i in range(rounds):
        made = http.post("/route", json={"query": {"text": f"question {i}"}}).json()
        outcome = {"quality": (i % 5) / 4, "latency_ms": 100 + i, "cost_usd": 0.001, **parts}
        http.post("/reward", json={"decision_id": made["decision_id"], **outcome})
        ids.append(made["decision_id"])
    return ids


def learn_all(redis_url: str, policy: str = "default") -> int:
    """Fold everything that is in the stream; the number of events."""
    store = LearnerStore(redis_url, policy)
    try:
        learner = Learner(store, policy, publish_interval_s=0.01, checkpoint_interval_s=0.01)
        return learner.burst()
    finally:
        store.close()


def fold_again(
    store: LearnerStore, archived: Iterable[list[Entry]] | None = None, version: str = "1"
) -> bytes:
    """The state of an undisturbed fold over the whole stream, or over what was archived of it."""
    config, encoder = store.version(version)
    fold = Fold.resume(
        version,
        read_config(config),
        Encoder.from_bytes(encoder),
        None,
        lambda revision: Catalog.from_stored(store.catalog(revision)),
    )
    if archived is None:
        archived = iter(lambda: store.outcomes(fold.position, 1000, None), [])
    for entries in archived:
        fold.fold(entries)
    return fold.checkpoint().pack()


def assert_same_state(one: bytes | None, other: bytes | None) -> None:
    """Equal positions, and sums equal to 1e-9."""
    assert one is not None
    assert other is not None
    states = unpack(one), unpack(other)
    assert states[0].header == states[1].header
    sums_one, sums_other = (LinearModel.from_parts(state.parts).sums() for state in states)
    assert sums_one.keys() == sums_other.keys()
    for name, value in sums_one.items():
        np.testing.assert_allclose(value, sums_other[name], rtol=1e-9, atol=1e-9)


def offspring(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(word) for word in path.read_text().split()] if path.exists() else []
    return [p for child in children for p in (child, *offspring(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition: object, what: str, timeout_s: float = 10.0) -> None:
    """Wait for a condition; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(0.02)


def override(
    redis_url: str, version: str, policy: str = "default", keep_share: float = 0.0
) -> str | None:
    """Make a version champion as `pointsman promote --override` does; the one before, or None
    where there is no such version."""
    with closing(OperatorStore(redis_url, policy)) as store, suppress(LookupError):
        return store.promote(
            version,
            "me",
            "tests say so",
            0,
            max_age_ms=0,
            override=True,
            keep_share=keep_share,
        ).before
    return None
