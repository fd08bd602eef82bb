"""What typing errors do to a policy: how often another arm becomes the most probable one."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from features.profile import profile
from features.query import Query
from pointsman.trying.routers import Asked
from policy.deciding import Encoded, decide
from policy.policy import Policy
from policy.records import Decision

SHARE = 0.05  # of the characters
QUERIES = 1_000  # of a set, the same ones in each shuffle


def garbled(text: str, rng: np.random.Generator) -> str:
    """The text with each character, with the probability SHARE, replaced by another letter."""
    letters = list(text)
    for at in np.flatnonzero(rng.random(len(letters)) < SHARE):
        others = string.ascii_lowercase.replace(letters[at], "")
        letters[at] = others[rng.integers(len(others))]
    return "".join(letters)


def flips(policy: Policy, queries: Sequence[Asked]) -> float:
    """The share of some queries whose most probable arm changes when their text is garbled."""
    rng = np.random.default_rng(20)
    some = [queries[row] for row in rng.permutation(len(queries))[:QUERIES]]
    before = _likeliest(policy, some)
    after = _likeliest(policy, [_typed(policy, query, rng) for query in some])
    return float(np.mean([a != b for a, b in zip(before, after, strict=True)]))


def _typed(policy: Policy, query: Asked, rng: np.random.Generator) -> Asked:
    request = query.request
    if request.query is not None:
        request = replace(request, query=Query(text=garbled(request.query.prompt(), rng)))
    known = profile(request.query, request.hints)
    return Asked(request, known, policy.encoder.encode(request.query, request.hints, known))


def _likeliest(policy: Policy, queries: Sequence[Asked]) -> list[str]:
    made = decide(policy, [Encoded(q.request, "typed", q.known, q.x) for q in queries], 0)
    decided = [one for one in made if isinstance(one, Decision)]
    return [one.arms[int(one.pmf.argmax())] for one in decided]
