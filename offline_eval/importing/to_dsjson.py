"""A log in the format of Vowpal Wabbit's decision service, which `dsjson` describes and reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from offline_eval.importing.dsjson import OUR_CONTEXT
from policy import objective
from policy.arms.catalog import Catalog
from policy.objective import Scales
from policy.records import LoggedDecision

Object = dict[str, Any]


def write(
    rows: Iterable[LoggedDecision],
    catalog: Catalog | None = None,
    scales: Mapping[str, Scales] | None = None,
) -> Iterator[str]:
    """Lines that `vw --dsjson --cb_adf` learns from and that `dsjson.Reader` reads back.

    The cost is the negative reward under the row's own objective with the `scales` of its policy;
    without any, the negative quality. A row whose reward isn't complete has no label, and neither
    has one whose arm was not the one executed: it is marked `_skipLearn`, which not every reader
    heeds. The context goes out as the namespace `x`, an arm's id and what `catalog` knows of it as
    the arm's features. A row without a propensity is a ValueError.
    """
    for row in rows:
        if math.isnan(row.decision.propensity):
            raise ValueError(
                f"decision {row.decision.decision_id!r} has no propensity, without which no reader"
                " can learn from its line"
            )
        policy = row.decision.policy
        if scales is not None and policy not in scales:
            raise ValueError(f"no reference latency and cost are given for policy {policy!r}")
        own = None if scales is None else scales[policy]
        yield orjson.dumps(_line(row, catalog, own)).decode()


def _line(row: LoggedDecision, catalog: Catalog | None, scales: Scales | None) -> Object:
    decision = row.decision
    executed_arm = row.outcome.executed_arm or decision.arm
    used = row.outcome.executed and executed_arm == decision.arm
    index = decision.arms.index(decision.arm)
    others = [i for i in np.argsort(-decision.pmf, kind="stable").tolist() if i != index]
    ranked = [index, *others]
    reward = _reward(row, scales) if used else math.nan
    line: Object = {}
    if not math.isnan(reward):
        line |= {
            "_label_cost": 0.0 - reward,
            "_label_probability": decision.propensity,
            "_label_Action": index + 1,
            "_labelIndex": index,
        }
    if not used:
        line["_skipLearn"] = True
    made_at = datetime.fromtimestamp(decision.made_at_ms / 1_000, UTC)
    model = f"pointsman/{decision.version}/{decision.snapshot}/{decision.encoder}"
    line |= {
        "Timestamp": f"{made_at:%Y-%m-%dT%H:%M:%S}.{decision.made_at_ms % 1_000:03d}Z",
        "Version": "1",
        "EventId": decision.decision_id,
        "a": [i + 1 for i in ranked],
        "c": {
            OUR_CONTEXT: [float(value) for value in decision.x],
            "_multi": [_action(arm, catalog) for arm in decision.arms],
        },
        "p": [float(decision.pmf[i]) for i in ranked],
        "VWState": {"m": model},
    }
    if row.stands_for != 1.0:
        line["pdrop"] = 1.0 - 1.0 / row.stands_for
    return line


def _reward(row: LoggedDecision, scales: Scales | None) -> float:
    """NaN while incomplete."""
    outcome = row.outcome
    given = [outcome.quality, outcome.latency_ms, outcome.cost_usd]
    quality, latency_ms, cost_usd = (math.nan if v is None else v for v in given)
    failed = outcome.error is not None
    if scales is None:
        return 0.0 if failed else quality
    y = objective.components(quality, latency_ms, cost_usd, failed, scales)
    return float(objective.reward(y, row.decision.weights)[0])


def _action(arm_id: str, catalog: Catalog | None) -> Object:
    action: Object = {"_tag": arm_id, "i": {"constant": 1, "id": arm_id}}
    if catalog is not None and arm_id in catalog:
        arm = catalog.arm(arm_id)
        action["j"] = {
            "provider": arm.provider,
            "model": arm.model,
            "usd_per_mtok_in": arm.usd_per_mtok_in,
            "usd_per_mtok_out": arm.usd_per_mtok_out,
        }
    return action
