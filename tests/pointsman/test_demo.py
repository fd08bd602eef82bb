"""The demo: data that is worth routing, a service that is gone afterwards, pictures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from pointsman.commands.demo import command
from pointsman.trying import demo
from pointsman.trying.result import Hindsight


def test_made_data_is_worth_routing():
    """No arm is best everywhere: the rule per task earns clearly more than any single arm."""
    outcomes = demo.make(2_000)
    hindsight = Hindsight.of(outcomes, demo.POLICY)
    every = np.arange(len(outcomes))
    assert hindsight.per_category(every).mean() > hindsight.single(every).mean() + 0.03
    assert len(set(hindsight.rule(every).tolist())) >= 4


def test_made_data_is_the_same_for_a_seed():
    """Texts and outcomes alike; its latency has a heavy tail."""
    first, again, other = demo.make(300), demo.make(300), demo.make(300, seed=1)
    assert first.texts == again.texts
    assert np.array_equal(first.latency_ms, again.latency_ms)
    assert first.texts != other.texts
    tail = np.quantile(first.latency_ms, 0.99) / np.median(first.latency_ms)
    assert tail > 4


def test_the_demo_shows_the_loop(tmp_path: Path):
    """Figures, two pictures, and data that `simulate` can read."""
    done = CliRunner().invoke(command, ["--out", str(tmp_path / "demo"), "--rounds", "150"])
    assert done.exit_code == 0, done.output
    assert "captured" in done.stdout
    for name in ("reward.png", "tasks.png"):
        assert (tmp_path / "demo" / name).read_bytes().startswith(b"\x89PNG")
        assert str(tmp_path / "demo" / name) in done.stdout


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_service_is_gone_after_an_interruption(tmp_path: Path, signum: signal.Signals):
    """Ctrl-C in the middle leaves no process and no temporary folder."""
    with subprocess.Popen(
        [sys.executable, "-m", "pointsman", "demo", "--out", "demo", "--rounds", "50000"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "POINTSMAN_PORT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            url = _await_url(tmp_path)
            process.send_signal(signum)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # a failed test must not leave its rounds to be played
    assert process.returncode in (130, 143)
    assert b"Traceback" not in errors
    assert not list(tmp_path.glob("pointsman-demo-*"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def _await_url(folder: Path) -> str:
    """The address that the demo's service logs, once it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for log in folder.glob("pointsman-demo-*/up.log"):
            words = [word for word in log.read_text().split() if word.startswith("http://")]
            try:
                if words and httpx.get(f"{words[0]}/readyz").is_success:
                    return words[0]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError("the demo's service did not start")
