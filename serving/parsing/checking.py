"""A decoded body -> a record, or what is wrong with which of its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serving.parsing.decoding import shown

Body = TypeVar("Body", bound=BaseModel)

MOST = 20  # faults that are told of one body
SENTENCES: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is no field here",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "dict_type": "should be an object",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
}
_SUBJECT = re.compile(r"^(Input|String|List|Tuple|Dictionary|Value) should")


class Invalid(ValueError):
    """A body that is not what is taken; `faults` are fields, by their path, and what is wrong."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {why}" if field else why for field, why in faults))
        self.faults = faults


def checked(model: type[Body], body: Any) -> Body:
    """The body as a record; Invalid where it is none."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(list(dict.fromkeys(_faults(found[:MOST], body)))) from None


def _faults(found: Sequence[Any], body: Any) -> Iterator[tuple[str, str]]:
    """What the caller can act on.

    Where a field may have several shapes, each of them complains: those that are no match say
    nothing once another one has got further.
    """
    paths = [_path(fault, body) for fault in found]
    further = [
        path for path, fault in zip(paths, found, strict=True) if not _of_shape(fault["type"])
    ]
    for path, fault in zip(paths, found, strict=True):
        beneath = [other for other in (*further, *paths) if other[: len(path)] == path]
        if _of_shape(fault["type"]) and any(o in further or o != path for o in beneath):
            continue
        told = sentence(fault)
        rootless = not path and fault["type"] in SENTENCES
        yield ".".join(path), f"the body {told}" if rootless else told


def _of_shape(kind: str) -> bool:
    return kind == "literal_error" or kind.endswith("_type")


def _path(fault: Mapping[str, Any], body: Any) -> tuple[str, ...]:
    """Where a fault is in the body: a place as the validator gives it also names its own parts."""
    path: list[str] = []
    for step in fault["loc"]:
        inside = step in body if isinstance(body, dict) else _is_index(step, body)
        if inside:
            body = body[step]
            path.append(shown(str(step)))
    if fault["type"] == "missing":
        path.append(str(fault["loc"][-1]))
    return tuple(path)


def _is_index(step: Any, body: Any) -> bool:
    return isinstance(body, list) and isinstance(step, int) and step < len(body)


def sentence(fault: Mapping[str, Any]) -> str:
    """What the validator says of a field, in our words."""
    told = SENTENCES.get(fault["type"])
    if told is None:
        told = _SUBJECT.sub("should", fault["msg"].removeprefix("Value error, "))
        told = told.replace(" after validation", "")
    return told
