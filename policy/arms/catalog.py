"""Arms, what they can do and what they cost. Pure data: reading TOML is config.py's work."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, field_validator

from features.capabilities import Capability
from features.lexicon import TASK_TYPES

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
Array = TypeVar("Array", bound=NDArray[Any])

ArmId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Price = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]

READ_PER_WRITTEN = 100  # tokens of a prompt that are read in the time that one is written


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values as they are; ValueError when one is there twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"must not repeat itself, got {value!r} twice")
        seen.add(value)
    return values


def by_task_type(values: Mapping[str, float]) -> Mapping[str, float]:
    """The values as they are; ValueError when a key is no task type."""
    for task_type in values:
        if task_type not in TASK_TYPES:
            known = ", ".join(TASK_TYPES)
            raise ValueError(f"unknown task type {task_type!r}, known are {known}")
    return values


class UnknownPrice(LookupError):
    """A call used something that its arm has no price for: its cost can't be known."""


class Arm(BaseModel):
    """One model choice. Prices are USD per million tokens, as on `prices_checked` if told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: ArmId
    provider: Name
    model: Name
    context_window_tokens: Annotated[int, Field(strict=True, gt=0, le=10**9)] | None = None
    """None where nobody has said: then no query is too long for it."""
    usd_per_mtok_in: Price
    usd_per_mtok_out: Price
    usd_per_mtok_cached_in: Price | None = None
    """Of prompt tokens that the provider had in its cache; None is unknown, and never 0."""
    usd_per_mtok_cache_write: Price | None = None
    """Of prompt tokens that the provider puts into its cache; None is unknown, and never 0."""
    usd_per_request: Price = 0.0
    """What a call costs beside its tokens; most cost nothing."""
    prices_checked: Annotated[datetime.date, Field(strict=True)] | None = None
    prices_source: Source | None = None
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1, max_length=64)] = ("chat",)
    priors: Mapping[str, Share] = {}
    """Expected quality per task type, where somebody knows it."""
    tokens_per_second: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    endpoints: Annotated[tuple[Source, ...], Field(max_length=256)] = ()
    """Names or URLs of the instances that serve this arm."""
    enabled: Annotated[bool, Field(strict=True)] = True

    @field_validator("capabilities", "endpoints")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(values)

    @field_validator("priors")
    @classmethod
    def _of_task_types(cls, priors: Mapping[str, float]) -> Mapping[str, float]:
        return by_task_type(priors)


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
    def enabled(self) -> Mask:
        return _readonly(np.array([arm.enabled for arm in self.arms]))

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
        usd = prompt_tokens * self.usd_per_mtok_in + output_tokens * self.usd_per_mtok_out
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

    def cost_usd(
        self,
        arm_id: str,
        input_tokens: float,
        output_tokens: float,
        cached_in: float = 0,
        cache_write: float = 0,
    ) -> float:
        """What a call cost at one arm's prices; `input_tokens` are those that no cache had.

        Raises
        ------
        UnknownPrice
            If the provider's cache was used, and the arm doesn't say what that costs.

        >>> arm = Arm(id="a", provider="p", model="m", usd_per_mtok_in=0.5, usd_per_mtok_out=1.5)
        >>> Catalog((arm,)).cost_usd("a", input_tokens=1000, output_tokens=200)
        0.0008
        """
        arm = self.arm(arm_id)
        usd = input_tokens * arm.usd_per_mtok_in + output_tokens * arm.usd_per_mtok_out
        for name, tokens in (
            ("usd_per_mtok_cached_in", cached_in),
            ("usd_per_mtok_cache_write", cache_write),
        ):
            if tokens:
                price = getattr(arm, name)
                if price is None:
                    raise UnknownPrice(f"arm {arm_id!r} has no {name} for {tokens} tokens")
                usd += tokens * price
        return usd / 1e6 + arm.usd_per_request

    def to_json(self) -> str:
        return _ARMS.dump_json(self.arms).decode()

    @classmethod
    def from_json(cls, data: str | bytes) -> Catalog:
        return cls(_ARMS.validate_json(data))


def _readonly(array: Array) -> Array:
    array.setflags(write=False)
    return array
