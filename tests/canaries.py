"""What must be found nowhere, where it may be sent, and how it is looked for.

Whoever takes text or a secret somewhere else adds it here: `test_canaries` then sends it, walks all
paths of the OpenAPI document, and searches all that any process has written.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq

TEXT: Mapping[str, str] = {
    "text": "canary-0-sparrow of a query's text",
    "message": "canary-1-finch of a chat message",
    "part": "canary-2-wren of a message's part",
    "tool": "canary-3-robin of a tool's description",
    "arguments": "canary-4-heron of a tool call's arguments",
    "schema": "canary-5-egret of an answer's schema",
    "passed over": "canary-6-raven of what routing has no use for",
    "label": "canary-7-stork of a label's value",
    "task type": "canary-8-crane of a task type",
    "broken": "canary-9-swift of a body that is no JSON",
    "number": "canary-10-rook where a number should be",
    "key": "canary-11-gull where a field's name should be",
}
KEPT = "canary-12-dove of a query whose policy has store_text"
SECRETS: Mapping[str, str] = {
    "unknown key": "pm_canary-13-owl-of-a-key-that-nobody-made-0123",
    "basic": "canary-14-hawk-of-a-password",
    "parameter": "canary-15-kite-of-a-query-string",
    "redis": "canary-16-ibis-of-redis",
    "provider": "canary-17-lark-of-a-provider",
    "token": "canary-18-tern-of-what-tokens-are-signed-with",
    "mlflow": "canary-19-shrike-of-mlflow",
}
NAMES = frozenset(
    {
        *("policy", "decision_id", "session", "arm", "baseline", "executed_arm", "returned"),
        *("allow", "deny", "providers", "models", "version", "challenger", "catalog", "encoder"),
        *("state", "endpoint", "draw_id", "id", "challenger_encoder", "degraded", "kind"),
        *("by", "reason", "error"),  # words for the record, as the docs say
    }
)
"""Fields whose strings are names, which errors may repeat and records keep: they hold no text."""


def query(canaries: Mapping[str, str] = TEXT) -> dict[str, Any]:
    """A chat completion's body with a canary wherever text may be."""
    call = {"type": "function", "function": {"name": "f", "arguments": canaries["arguments"]}}
    return {
        "messages": [
            {"role": "system", "content": canaries["message"]},
            {"role": "assistant", "tool_calls": [{"id": "1", **call}]},
            {"role": "user", "content": [{"type": "text", "text": canaries["part"]}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": canaries["tool"]}}],
        "response_format": {"type": "json_schema", "json_schema": {"x": canaries["schema"]}},
        "user": canaries["passed over"],
        "metadata": {"note": canaries["passed over"]},
    }


def hints(canaries: Mapping[str, str] = TEXT) -> dict[str, Any]:
    return {"task_type": canaries["task type"], "labels": {"team": canaries["label"]}}


def bodies(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Bodies with a canary at one place each: as a string where a number or text may be, and as the
    name of a field wherever an object may be."""
    known, text = document["components"]["schemas"], TEXT["number"]
    for path, names in _leaves(known, schema):
        if not names:
            yield _nested(path, text)
        yield _nested(path, {TEXT["key"]: text})
        yield _nested(path, [text])


def _leaves(
    known: Mapping[str, Any], schema: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Paths of all fields, and whether a string there is a name."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    for inner in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _leaves(known, inner, path)
    if "items" in schema:
        yield from _leaves(known, schema["items"], (*path, "[]"))
    for name, inner in schema.get("properties", {}).items():
        if len(path) < 5:
            yield (*path, name), bool({name, *path} & NAMES)
            yield from _leaves(known, inner, (*path, name))


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = [value] if name == "[]" else {name: value}
    return value


def spellings(canary: str) -> set[bytes]:
    """As it may stand in a file: as it is, in hex or in base64, wherever that begins."""
    mark = canary.split(maxsplit=1)[0].encode()
    inner = {base64.b64encode(b"\0" * i + mark)[(0, 2, 3)[i] :][: len(mark)] for i in range(3)}
    return {mark, mark.hex().encode(), quote(mark).encode(), *inner}


def found_in(data: bytes, canaries: Mapping[str, str]) -> set[str]:
    """Which of them stand there."""
    return {
        name for name, canary in canaries.items() if any(one in data for one in spellings(canary))
    }


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files under a folder; Parquet as its rows, for that is packed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += str(pq.read_table(path, partitioning=None).to_pylist()).encode()
            yield str(path.relative_to(folder)), data
