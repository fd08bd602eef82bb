"""TLS, served by the service itself."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from serving.processes.up import listen
from tests.servers import ready, settings_for, until


@pytest.mark.slow
def test_a_service_serves_tls(redis_url: str, tmp_path: Path, certificate: tuple[Path, Path]):
    """A client that trusts the certificate is answered; one without TLS isn't."""
    settings = settings_for(redis_url, tmp_path)
    with closing(listen(settings)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, **settings.environment(), "POINTSMAN_PORT": str(port)}
    files = [f"--ssl-certfile={certificate[0]}", f"--ssl-keyfile={certificate[1]}"]
    command = [sys.executable, "-m", "pointsman", "serve", *files]
    trusting = ssl.create_default_context(cafile=certificate[0])
    process = subprocess.Popen(command, env=environment)
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting) as http:
            until(lambda: ready(http), "the service is ready", 30.0)
            for _ in range(2):  # on one connection
                assert http.post("/route", json={"query": {"text": "x"}}).status_code == 200
            assert len(http.get("/openapi.json").content) > 65_536
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
    finally:
        process.terminate()
        process.wait(20.0)


def test_files_that_do_not_do_are_told_at_the_start(tmp_path: Path, certificate: tuple[Path, Path]):
    """Before anything is started."""
    wrong = tmp_path / "wrong.pem"
    for files in ((wrong, None), (certificate[0], None), (certificate[0], certificate[0])):
        settings = settings_for("unused", tmp_path, ssl_certfile=files[0], ssl_keyfile=files[1])
        with pytest.raises(OSError, match=r"can't serve TLS with .*pem"):
            listen(settings)
