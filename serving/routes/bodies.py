"""Bytes of a request -> a checked body, and a body -> bytes of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import TooLarge, problem

Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, model: type[Body]) -> Body:
    """The body as a model, in one pass over its bytes.

    Raises
    ------
    TooLarge
        Beyond the limit of settings, noticed before the body has been read.
    pydantic.ValidationError
        If it isn't JSON, or not what the model wants.
    """
    limit: int = request.app.state.settings.max_body_bytes
    declared = request.headers.get("content-length")
    if declared is None:
        raw = await _bounded(request, limit)
    elif declared.isdigit() and int(declared) <= limit:
        raw = await request.body()
    else:
        raise _too_large(limit)
    return model.model_validate_json(raw)


async def _bounded(request: Request, limit: int) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit:
            raise _too_large(limit)
    return bytes(raw)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"a body may have {limit} bytes at most")


async def answer_each(
    request: Request, items: Sequence[Any], one: Callable[[Any], Awaitable[dict[str, Any]]]
) -> Response:
    """What `one` makes of each item of a batch, in order; a problem stands in a result's place."""
    limit: int = request.app.state.settings.max_batch
    if len(items) > limit:
        raise TooLarge(f"a batch may have {limit} items at most, got {len(items)}")
    results = await asyncio.gather(*map(one, items), return_exceptions=True)
    return write({"results": [problem(r) if isinstance(r, Exception) else r for r in results]})


def write(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a body that `read` takes."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
