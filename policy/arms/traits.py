"""What is known of an arm before any outcome, as numbers that say alike of arms that are alike.

A number is 0 where nobody has said, or where what is said is typical: it then says nothing.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from policy.arms.arm import Arm

Vector = NDArray[np.float64]

TYPICAL_USD_PER_MTOK = 1.0
TYPICAL_SIZE_B = 30.0
TYPICAL_WINDOW_TOKENS = 128_000
CAPABILITIES = ("reasoning", "tools", "vision")
MAKER_DIGITS = 8
NAMES = (
    *("price", "size", "window"),
    *(f"capability:{name}" for name in CAPABILITIES),
    *(f"maker:{i}" for i in range(MAKER_DIGITS)),
)


def traits(arm: Arm) -> Vector:
    """(number of NAMES,): price, size and window in powers of ten of a typical one, what it can do,
    and a sign code of norm 1 of its maker, by which those of one maker are alike.

    >>> arm = Arm(id="a", provider="p", model="m", usd_per_mtok_in=10.0, usd_per_mtok_out=10.0)
    >>> dict(zip(NAMES, traits(arm)))["price"]
    np.float64(1.0)
    """
    usd_per_mtok = (3.0 * arm.usd_per_mtok_in + arm.usd_per_mtok_out) / 4.0
    said = [
        _powers(usd_per_mtok, TYPICAL_USD_PER_MTOK),
        _powers(arm.parameters_b, TYPICAL_SIZE_B),
        _powers(arm.context_window_tokens, TYPICAL_WINDOW_TOKENS),
    ]
    can = [float(name in arm.capabilities) for name in CAPABILITIES]
    return np.concatenate([said, can, _code(arm.maker)])


def _code(maker: str | None) -> Vector:
    if maker is None:
        return np.zeros(MAKER_DIGITS)
    digest = hashlib.blake2b(maker.lower().encode(), digest_size=1).digest()
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.float64)
    code: Vector = (2.0 * bits - 1.0) / math.sqrt(MAKER_DIGITS)
    return code


def _powers(value: float | None, typical: float) -> float:
    """An arm that costs nothing has no price that would tell what it is like."""
    return math.log10(value / typical) if value else 0.0
