"""The arms that may be chosen, in one order, and what they say as vectors. Pure data."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import is_
from typing import Any, Protocol, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from features.lexicon import TASK_TYPES
from policy.arms.arm import Arm
from policy.arms.traits import traits
from policy.stored import Unreadable, opened, sealed

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
Array = TypeVar("Array", bound=NDArray[Any])

READ_PER_WRITTEN = 100  # tokens of a prompt that are read in the time that one is written


class Sized(Protocol):
    """A query's task mix and token counts: a Profile says them."""

    @property
    def task_mix(self) -> Vector: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


_ARMS = TypeAdapter(tuple[Arm, ...])


@dataclass(frozen=True)
class Catalog:
    """The arms a policy may choose from, in a fixed order; position i is arm i of every vector."""

    arms: tuple[Arm, ...]

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("a catalog needs at least one arm")
        first: dict[str, int] = {}
        for i, arm in enumerate(self.arms):
            if first.setdefault(arm.id, i) != i:
                raise ValueError(f"arm id {arm.id!r} is given twice, at {first[arm.id]} and {i}")

    def __len__(self) -> int:
        return len(self.arms)

    def __contains__(self, arm_id: object) -> bool:
        return arm_id in self._positions

    def __hash__(self) -> int:
        return hash(self.revision)

    def index(self, arm_id: str) -> int:
        """Position of an arm; KeyError when there is none of this id."""
        return self._positions[arm_id]

    def arm(self, arm_id: str) -> Arm:
        return self.arms[self._positions[arm_id]]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(arm.id for arm in self.arms)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {arm_id: i for i, arm_id in enumerate(self.ids)}

    @cached_property
    def revision(self) -> str:
        """12 hex digits over everything the arms say: any change of content changes it."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=6).hexdigest()

    @cached_property
    def usd_per_mtok_in(self) -> Vector:
        return _readonly(np.array([arm.usd_per_mtok_in for arm in self.arms]))

    @cached_property
    def usd_per_mtok_out(self) -> Vector:
        return _readonly(np.array([arm.usd_per_mtok_out for arm in self.arms]))

    @cached_property
    def usd_per_request(self) -> Vector:
        return _readonly(np.array([arm.usd_per_request for arm in self.arms]))

    @cached_property
    def _tiers(self) -> tuple[Vector, ...]:
        """(3, k) each: above how many tokens of a prompt which prices hold, in and out; the j-th of
        each arm, above infinity where it has none."""
        none = (np.inf, 0.0, 0.0)
        rows = [
            [(t.above_tokens, t.usd_per_mtok_in, t.usd_per_mtok_out) for t in arm.price_tiers]
            for arm in self.arms
        ]
        return tuple(
            _readonly(np.array([row[j] if j < len(row) else none for row in rows]).T)
            for j in range(max(map(len, rows)))
        )

    @cached_property
    def context_window_tokens(self) -> NDArray[np.int64]:
        """The most that an integer holds where nobody has said."""
        unknown = np.iinfo(np.int64).max
        windows = [arm.context_window_tokens or unknown for arm in self.arms]
        return _readonly(np.array(windows, dtype=np.int64))

    @cached_property
    def usd_per_mtok(self) -> Vector:
        """Input and output blended three to one, as price comparisons usually do."""
        return _readonly((3 * self.usd_per_mtok_in + self.usd_per_mtok_out) / 4)

    @cached_property
    def tokens_per_second(self) -> Vector:
        """NaN where nobody has said."""
        return _readonly(np.array([arm.tokens_per_second or np.nan for arm in self.arms]))

    @cached_property
    def priors(self) -> Vector:
        """(k, number of task types) in the order of TASK_TYPES, NaN where nobody has said."""
        rows = [[arm.priors.get(task, np.nan) for task in TASK_TYPES] for arm in self.arms]
        return _readonly(np.array(rows, dtype=np.float64))

    @cached_property
    def traits(self) -> Vector:
        """(k, number of traits.NAMES)."""
        return _readonly(np.array([traits(arm) for arm in self.arms]))

    @cached_property
    def enabled(self) -> Mask:
        return _readonly(np.array([arm.enabled for arm in self.arms]))

    def at(self, day: datetime.date) -> Catalog:
        """These arms with the prices of a day; itself where none of them changes by then."""
        arms = tuple(arm.at(day) for arm in self.arms)
        return self if all(map(is_, arms, self.arms)) else Catalog(arms)

    def having(self, capability: str) -> Mask:
        """Which arms have a capability."""
        return self._having.get(capability, self._none)

    @cached_property
    def _having(self) -> dict[str, Mask]:
        names = {name for arm in self.arms for name in arm.capabilities}
        return {
            name: _readonly(np.array([name in arm.capabilities for arm in self.arms]))
            for name in names
        }

    @cached_property
    def _none(self) -> Mask:
        return _readonly(np.zeros(len(self.arms), dtype=bool))

    def among(self, arm_ids: Iterable[str]) -> Mask:
        """Which arms are among these ids; ids of no arm are passed over."""
        mask = np.zeros(len(self.arms), dtype=bool)
        positions = self._positions
        mask[[positions[arm_id] for arm_id in arm_ids if arm_id in positions]] = True
        return mask

    def list_cost_usd(
        self, prompt_tokens: float | Vector, output_tokens: float | Vector, index: Index
    ) -> Vector:
        """What a call with these token counts costs at the arms at positions `index`, (k,); (n, k)
        for counts (n, 1)."""
        price_in, price_out = self.usd_per_mtok_in, self.usd_per_mtok_out
        for above, tier_in, tier_out in self._tiers:
            longer = prompt_tokens > above
            price_in = np.where(longer, tier_in, price_in)
            price_out = np.where(longer, tier_out, price_out)
        usd = prompt_tokens * price_in + output_tokens * price_out
        cost: Vector = usd[..., index] / 1e6 + self.usd_per_request[index]
        return cost

    def latency_ms(self, prompt_tokens: float, output_tokens: float, index: Index) -> Vector:
        """How long such a call takes by `tokens_per_second`, (k,); NaN where nobody has said."""
        written = output_tokens + prompt_tokens / READ_PER_WRITTEN
        latency: Vector = 1000.0 * written / self.tokens_per_second[index]
        return latency

    def expected(self, query: Sized, index: Index) -> Vector:
        """What the catalog says of a call: quality, latency_ms, cost_usd (k, 3), NaN if nothing.

        Quality is the mean of the priors over the task mix, where they cover half of it or more.
        """
        prompt_tokens, output_tokens = query.prompt_tokens, query.output_tokens
        priors = self.priors[index]
        said = ~np.isnan(priors)
        covered = said @ query.task_mix
        quality = np.full(len(index), np.nan)
        total = np.where(said, priors, 0.0) @ query.task_mix
        np.divide(total, covered, out=quality, where=covered >= 0.5)
        latency_ms = self.latency_ms(prompt_tokens, output_tokens, index)
        cost_usd = self.list_cost_usd(prompt_tokens, output_tokens, index)
        return np.column_stack([quality, latency_ms, cost_usd])

    def to_json(self) -> str:
        return _ARMS.dump_json(self.arms).decode()

    @classmethod
    def from_json(cls, data: str | bytes) -> Catalog:
        return cls(_ARMS.validate_json(data))

    def to_stored(self) -> bytes:
        """The arms as JSON, with format and checksum."""
        return sealed("catalog", {"arms": orjson.loads(self.to_json())})

    @classmethod
    def from_stored(cls, data: bytes | str) -> Catalog:
        """What `to_stored` wrote; Unreadable for anything else."""
        try:
            return cls(_ARMS.validate_json(orjson.dumps(opened("catalog", data)["arms"])))
        except (KeyError, ValidationError) as error:
            raise Unreadable(f"not a catalog: {str(error).splitlines()[0]}") from None


def _readonly(array: Array) -> Array:
    array.setflags(write=False)
    return array
