"""A decider in the caller's own process, for callers that can't pay a round trip.

Other than the rest of this package it needs the code that decides: `features` and `policy`, which
come with the distribution `pointsman` (Python 3.11 or newer, numpy, scipy, orjson).
"""

from __future__ import annotations

try:
    import policy.policy  # noqa: F401 - is it here?
except ImportError as error:
    raise ImportError(
        "pointsman_client.local decides in this process, and for that needs the distribution "
        f"`pointsman` beside `pointsman-client` (from a checkout: pip install .): {error}"
    ) from error

from pointsman_client.local.asking import Decision
from pointsman_client.local.decider import Decider
from pointsman_client.local.outbox import Backlog

__all__ = ["Backlog", "Decider", "Decision"]
