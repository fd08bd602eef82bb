"""The linear value model's bytes: read again, or refused."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest

from policy.values.linear.model import LinearModel
from policy.values.linear.view import LinearView
from tests.policy.linear_model import (
    GROUPS,
    MIXED,
    SCALES,
    all_of,
    events,
    taught,
)


def test_model_bytes_round_trip():
    """Bit for bit, and learning goes on as if nothing had happened, to 1e-12."""
    model = taught(events(200, missing=0.2), forgetting=0.999)
    again = LinearModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    for each in (model, again):
        each.learn(events(200, seed=1))
    for name, value in model.sums().items():
        np.testing.assert_allclose(again.sums()[name], value, rtol=1e-12, atol=1e-12)


def test_view_bytes_round_trip():
    """The same forecast on the other side."""
    view = taught(events(200)).view()
    again = LinearView.from_bytes(view.to_bytes())
    assert again.to_bytes() == view.to_bytes()
    x, costs = events(1, seed=9).x[0], np.full(3, 0.002)
    one_side, other_side = (
        v.bind(v.arms).forecast(x, all_of(3), costs, MIXED) for v in (view, again)
    )
    assert one_side.utility.tolist() == other_side.utility.tolist()


def test_nothing_learned_round_trips():
    """A model and a view without arms."""
    model = LinearModel(GROUPS, SCALES)
    assert LinearModel.from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()
    view = model.view()
    assert LinearView.from_bytes(view.to_bytes()).to_bytes() == view.to_bytes()


def altered(body: bytes, **changes: object) -> bytes:
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length]) | changes
    head = json.dumps(header).encode()
    return struct.pack("<I", len(head)) + head + body[4 + length :]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: b"\xff" * len(body),
        lambda body: altered(body, arms=["a"]),
        lambda body: altered(body, arrays={}),
        lambda body: altered(body, arrays={"xx": ["|O", [3]]}),
        lambda body: altered(body, arrays={"xx": ["<f8", [10**12]]}),
        lambda body: altered(body, arrays={"xx": ["<f8", [-1]]}),
        lambda body: altered(body, sizes={"bias": 10**9}, scales={}),
        lambda body: body[:-8] + struct.pack("<d", math.nan),
    ],
)
def test_damaged_bytes_are_refused(wrong):
    """With a ValueError, whatever they are, and without allocating what they claim."""
    model = taught(events(50))
    for body, read in (
        (model.to_bytes(), LinearModel.from_bytes),
        (model.view().to_bytes(), LinearView.from_bytes),
    ):
        with pytest.raises(ValueError, match=r"."):
            read(wrong(body))
