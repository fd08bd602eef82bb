"""A version's configuration <-> bytes."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from policy.config.schema import PolicyConfig
from policy.stored import Unreadable, opened, sealed


def write_config(config: PolicyConfig) -> bytes:
    """JSON, with format and checksum."""
    return sealed("version", config.model_dump(mode="json"))


def read_config(data: bytes) -> PolicyConfig:
    """What `write_config` wrote; Unreadable for anything else."""
    try:
        return PolicyConfig.model_validate_json(orjson.dumps(opened("version", data)))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Unreadable(f"not a version's configuration: {where}: {first['msg']}") from None
