"""Named arrays <-> bytes, for checkpoints and snapshots. No pickle; knows no model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
_KINDS = ("<f8", "<f4", "<i8", "|b1")


def pack(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The header, with the arrays' kinds and shapes, and the raw arrays."""
    layout = {name: [a.dtype.str, list(a.shape)] for name, a in arrays.items()}
    head = json.dumps({**header, "arrays": layout}).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *(a.tobytes() for a in arrays.values())])


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays that `pack` wrote; ValueError for anything else."""
    try:
        (length,) = _LENGTH.unpack_from(body)
        at = _LENGTH.size + length
        header, arrays = json.loads(body[_LENGTH.size : at]), {}
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


def floats(rows: Iterable[bytes], kind: str, numbers: int) -> NDArray[Any]:
    """(rows, numbers) finite floats of a kind, each row's bytes by themselves; else ValueError."""
    found = list(rows)
    size = numbers * np.dtype(kind).itemsize
    if lengths := {len(row) for row in found} - {size}:
        raise ValueError(f"expected rows of {size} bytes, got {sorted(lengths)}")
    array = np.frombuffer(bytearray().join(found), kind).reshape(len(found), numbers)
    if not np.isfinite(array).all():
        raise ValueError("rows hold numbers that aren't finite")
    return array


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
    d = matrices.shape[-1]
    return matrices.reshape(*matrices.shape[:-2], d * d).take(_upper(d), axis=-1)


@cache
def _upper(d: int) -> NDArray[np.intp]:
    """Where a matrix's upper triangle stands in the matrix, by rows."""
    return np.ravel_multi_index(np.triu_indices(d), (d, d))


def symmetric(triangles: NDArray[Any], d: int) -> NDArray[Any]:
    """`triangles` taken back."""
    rows, columns = np.triu_indices(d)
    matrices = np.zeros((*triangles.shape[:-1], d, d), dtype=triangles.dtype)
    matrices[..., rows, columns] = triangles
    matrices[..., columns, rows] = triangles
    return matrices
