"""Bytes of a request -> a checked body, and a body -> bytes of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.access.keys import Caller
from serving.errors import problem
from serving.parsing.checking import Body, checked
from serving.parsing.decoding import decode, decode_with_care, shown
from serving.parsing.excerpts import without_middles
from serving.parsing.unpacking import TooLarge, unpacked

LARGE = 65_536  # bytes, from which on a thread reads a body: others aren't kept waiting


async def read(request: Request, model: type[Body]) -> Body:
    """The body as a model.

    Raises
    ------
    TooLarge
        Beyond the limit of settings, noticed before the body has been read.
    Malformed, Invalid
        If it isn't JSON, or not what the model wants.
    """
    return await _read(request, model, request.app.state.settings.max_body_bytes)


async def read_query(request: Request, model: type[Body]) -> Body:
    """The same for a body with queries: it may be larger, and what nobody needs of a long text
    isn't read."""
    return await _read(request, model, request.app.state.settings.max_query_bytes, without_middles)


async def _read(
    request: Request,
    model: type[Body],
    limit: int,
    shortened: Callable[[bytes], bytes] = bytes,
) -> Body:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        why = f"content-encoding may be gzip or identity, got {shown(encoding)}"
        raise HTTPException(415, why, {"Accept-Encoding": "gzip"})
    chunks = await _received(request, limit)
    packed = encoding != "identity"
    if not packed and sum(map(len, chunks)) <= LARGE:
        return checked(model, decode(b"".join(chunks)))

    def patiently() -> Body:
        raw = b"".join(chunks)
        raw = unpacked(raw, limit) if packed else raw
        return checked(model, decode_with_care(shortened(raw)) if len(raw) > LARGE else decode(raw))

    return await asyncio.to_thread(patiently)


async def _received(request: Request, limit: int) -> list[bytes]:
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
    return chunks


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"a body may have {limit} bytes at most")


def caller(request: Request) -> Caller:
    """Who asks, and what that key is good for."""
    found: Caller = request.scope["caller"]
    return found


def limit(request: Request, items: Sequence[Any]) -> None:
    """Raise TooLarge for a batch of more items than settings allow."""
    most: int = request.app.state.settings.max_batch
    if len(items) > most:
        raise TooLarge(f"a batch may have {most} items at most, got {len(items)}")


async def answer_each(
    request: Request, items: Sequence[Any], one: Callable[[Any], Awaitable[dict[str, Any]]]
) -> Response:
    """What `one` makes of each item of a batch, in order; a problem stands in a result's place."""
    limit(request, items)
    results = await asyncio.gather(*map(one, items), return_exceptions=True)
    return write({"results": [problem(r) if isinstance(r, Exception) else r for r in results]})


def write(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a body that `read` takes."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
