"""What an arm may be able to do: one vocabulary, of catalog, constraints and profile alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator

KINDS = frozenset({"chat", "embeddings", "rerank"})  # what an arm is, beside what else it can do


def _named(capability: str) -> str:
    return "embeddings" if capability == "embedding" else capability


Capability = Annotated[
    Literal[
        "chat",
        "embeddings",
        "embedding",  # another word for it
        "vision",
        "audio",
        "tools",
        "json",
        "reasoning",
        "rerank",
    ],
    AfterValidator(_named),
]


def needed(presumed: Iterable[str], asked: Iterable[str]) -> frozenset[str]:
    """What a query needs, given what is presumed of it and what its caller asks for by name.

    Chat is only presumed: who asks for embeddings or for reranking doesn't need it.

    >>> sorted(needed({"chat"}, ["vision"])), sorted(needed({"chat"}, ["embeddings"]))
    (['chat', 'vision'], ['embeddings'])
    """
    wanted = frozenset(asked)
    if wanted.isdisjoint(KINDS):
        return wanted.union(presumed)
    return wanted.union(presumed) - ({"chat"} - wanted)
