"""Which processes make up a service: embedded server, learner, archiver, watch, serving."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from serving.access.opening import require_certificate, who_may_come_in
from serving.access.store import keys_at
from serving.processes import supervision as processes
from serving.processes.config_file import ConfigFile
from serving.processes.embedded import FOLDER, Embedded, EmbeddedError
from serving.processes.supervision import STOP_S, Child
from serving.settings import Settings
from serving.store.connecting.checking import require_usable

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "pointsman")
RETRY_S = 0.5  # before a server that died while it started is started once more


def up(settings: Settings) -> None:
    """Serve, learn and archive until told to end; without `redis_url` on an embedded server.

    Raises
    ------
    ConfigError, EmbeddedError, NotClosed
    OSError
        If the address is taken, or the operator's own Redis can't be used.
    """
    ConfigFile(settings.config, kept=settings.kept_config()).read()
    with closing(listen(settings)) as listener:
        if settings.redis_url is not None:
            require_usable(settings.redis_url)
            _say_who_may_come_in(settings, listener, settings.redis_url)
            _run(settings, listener, settings.redis_url, None)
            return
        embedded = Embedded(
            settings.data / FOLDER, fsync=settings.fsync, max_memory_mb=settings.max_memory_mb
        )
        embedded.start()
        try:
            _say_who_may_come_in(settings, listener, embedded.url)
            _run(settings, listener, embedded.url, embedded)
        finally:
            embedded.stop()


def _run(
    settings: Settings, listener: socket.socket, redis_url: str, embedded: Embedded | None
) -> None:
    environment = settings.environment() | {"POINTSMAN_REDIS_URL": redis_url}
    followers = [
        Child("learner", (*COMMAND, "learn", "--supervised"), _single_threaded(environment)),
        Child("archiver", (*COMMAND, "archive", "--supervised"), _single_threaded(environment)),
        Child("watch", (*COMMAND, "watch", "--supervised"), _single_threaded(environment)),
    ]
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.ssl_certfile is None else "https"
    log.info("serving on %s://%s:%s (try /docs)", scheme, host, port)

    def tend() -> None:
        if embedded is not None and embedded.poll() is not None:
            log.error("the embedded server ended; starting it again")
            try:
                embedded.start()
            except EmbeddedError as error:
                log.error("%s; trying again", error)
                time.sleep(RETRY_S)

    # What is acknowledged last is still learned and archived: serving ends first.
    processes.run([followers, _workers(settings, listener, environment)], tend, listener.close)


def serve(settings: Settings) -> None:
    """Serve without learner and archiver, against a Redis of the operator's own."""
    ConfigFile(settings.config, kept=settings.kept_config()).read()
    require_usable(settings.redis_url or "")
    with closing(listen(settings)) as listener:
        _say_who_may_come_in(settings, listener, settings.redis_url or "")
        workers = _workers(settings, listener, settings.environment())
        processes.run([workers], lambda: None, listener.close)


def _say_who_may_come_in(settings: Settings, listener: socket.socket, redis_url: str) -> None:
    """Log it, or raise NotClosed."""
    host, port = listener.getsockname()[:2]
    keys = asyncio.run(keys_at(redis_url))
    now_ms = time.time_ns() // 1_000_000
    log.info(who_may_come_in(keys, host, port, anybody=settings.open, now_ms=now_ms))


def _workers(
    settings: Settings, listener: socket.socket, environment: dict[str, str]
) -> Sequence[Child]:
    command = (*COMMAND, "serve", "--fd", str(listener.fileno()))
    shared = _single_threaded(environment)
    figures = settings.data / "metrics" / str(listener.getsockname()[1])  # others may share it
    if settings.workers > 1:
        shared["PROMETHEUS_MULTIPROC_DIR"] = str(_fresh(figures))

    def forget(pid: int) -> None:
        """What has ended has nothing under way; what it counted stays."""
        for path in figures.glob(f"gauge_live*_{pid}.db"):
            path.unlink()

    stop_s = settings.drain_s + STOP_S
    return [
        Child(f"serving process {i + 1}", command, shared, (listener.fileno(),), forget, stop_s)
        for i in range(settings.workers)
    ]


def serve_on(settings: Settings, fd: int) -> None:
    """One serving process on a listening socket that its parent has opened."""
    # Here, for its parent only supervises, and starts in half the time.
    from serving.app import create_app  # noqa: PLC0415
    from serving.observing.access_log import as_asked  # noqa: PLC0415
    from serving.processes.draining import GRACE_S, Draining  # noqa: PLC0415
    from serving.processes.front import config_of, may_open_many  # noqa: PLC0415

    may_open_many()
    app = create_app(settings, kept=settings.kept_config())
    config = config_of(
        settings,
        as_asked(settings, app),
        loop="uvloop",
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
        log_config=None,  # as all else that this process says
        timeout_graceful_shutdown=GRACE_S,
    )

    def drain() -> None:
        app.state.readiness.draining = True

    with socket.socket(fileno=fd) as listener:
        Draining(config, settings.drain_s, drain).run(sockets=[listener])


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the settings' address; OSError too where TLS could not be served."""
    if settings.ssl_certfile is not None:
        require_certificate(settings.ssl_certfile, settings.ssl_keyfile)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"can't serve on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    listener.listen(2048)
    return listener


def _single_threaded(environment: dict[str, str]) -> dict[str, str]:
    """Matrices here are small: a BLAS with threads of its own only gets in the way."""
    return {**environment, "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
