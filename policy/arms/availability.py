"""Which of a catalog's arms can be called now, whatever a request demands. Pure data: who watches
health and limits says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policy.arms.catalog import Catalog, Vector


@dataclass(frozen=True, slots=True, eq=False)
class Availability:
    """The vectors (number of arms,) are in catalog order, and None where they would say nothing."""

    out: Mapping[str, str] = field(default_factory=dict)
    """Arms that can't be called, each with the reason and until when."""
    back_ms: Mapping[str, int] = field(default_factory=dict)
    """When those of them come back that are out for their health."""
    answered: Vector | None = None
    """The share of an arm's calls that is expected not to fail."""
    tokens_left: Vector | None = None
    """Of the limits of an arm and all that it belongs to, for prompt and answer together."""
    usd_left: Vector | None = None
    """Likewise, of credits."""

    def only(self, arm_id: str, catalog: Catalog) -> Availability:
        """As if this arm alone could be called."""
        others = {other: self.out.get(other, "out") for other in catalog.ids if other != arm_id}
        return replace(self, out=others, back_ms={})


EVERYTHING = Availability()
