"""Named arrays <-> bytes, for checkpoints and snapshots. No pickle; knows no model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
_KINDS = ("<f8", "<f4", "<i8", "|b1")


def pack(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The header, with the arrays' kinds and shapes, and the raw arrays."""
    layout = {name: [a.dtype.str, list(a.shape)] for name, a in arrays.items()}
    return framed({**header, "arrays": layout}, (a.tobytes() for a in arrays.values()))


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays that `pack` wrote; ValueError for anything else."""
    try:
        header, at = opened(body)
        arrays = {}
        for name, (kind, shape) in header["arrays"].items():
            size = math.prod(shape)
            if kind not in _KINDS or min(shape, default=0) < 0:
                raise ValueError(f"array {name!r} has kind {kind!r} and shape {shape!r}")
            arrays[name] = np.frombuffer(body, kind, size, at).reshape(shape).copy()
            at += size * np.dtype(kind).itemsize
    except (struct.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the bytes of a model or view: {error!r}") from error
    if at != len(body):
        raise ValueError(f"expected {at} bytes, got {len(body)}")
    return header, arrays


def framed(header: dict[str, Any], parts: Iterable[bytes]) -> bytes:
    """Header length, header as JSON, parts one after the other."""
    head = json.dumps(header).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *parts])


def opened(body: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the parts begin; struct.error or ValueError for anything else."""
    (length,) = _LENGTH.unpack_from(body)
    at = _LENGTH.size + length
    return json.loads(body[_LENGTH.size : at]), at


def expect(arrays: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise unless these arrays are there, in these shapes, with finite numbers."""
    found = {name: array.shape for name, array in arrays.items()}
    if found != shapes:
        raise ValueError(f"expected arrays {shapes}, got {found}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"array {name!r} holds numbers that aren't finite")


def aligned(known: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp]:
    """Where each wanted arm stands among those known; -1, the last, for one that isn't."""
    position = {arm: i for i, arm in enumerate(known)}
    return np.array([position.get(arm, -1) for arm in wanted], dtype=np.intp)


def slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Parts of these sizes, one after the other."""
    stops = np.cumsum(list(sizes.values())).tolist()
    return {n: slice(e - s, e) for (n, s), e in zip(sizes.items(), stops, strict=True)}


def triangle(d: int) -> int:
    """How many numbers a symmetric matrix (d, d) holds."""
    return d * (d + 1) // 2


def triangles(matrices: NDArray[Any]) -> NDArray[Any]:
    """Symmetric (..., d, d) -> upper triangles (..., d (d + 1) / 2) by rows."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns]


def symmetric(triangles: NDArray[Any], d: int) -> NDArray[Any]:
    """`triangles` taken back."""
    rows, columns = np.triu_indices(d)
    matrices = np.zeros((*triangles.shape[:-1], d, d), dtype=triangles.dtype)
    matrices[..., rows, columns] = triangles
    matrices[..., columns, rows] = triangles
    return matrices
