"""A FastAPI endpoint that parses and returns the same bodies and does nothing else."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from benchmarks.serving.running import free_port, ready, wait
from pointsman_client.answers import Decision
from serving.routes.requests import RouteRequest


@contextmanager
def baseline(answer: bytes) -> Iterator[tuple[int, int]]:
    """The endpoint that does nothing else: its port and its process id."""
    port = free_port()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve_baseline, args=(port, answer), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        wait(lambda: ready(port), "the baseline is ready")
        yield port, process.pid
    finally:
        process.terminate()
        process.join()


def _serve_baseline(port: int, answer: bytes) -> None:
    app = FastAPI()
    prepared = Decision.model_validate_json(answer)

    @app.post("/route")
    async def route(body: RouteRequest) -> Decision:
        return prepared

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    gc.collect()
    gc.freeze()  # as in the service, so that its tail isn't flattered
    gc.set_threshold(50_000, 20, 100)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
    )
