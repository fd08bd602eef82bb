"""Logs of Azure Personalizer and of Vowpal Wabbit's decision service, as they write them.

One JSON object per line. `c` is the context: its `_multi` has one object of features per action,
all else in it is shared. `a` ranks the actions, counted from 1, and `p` runs parallel to `a`, not
to `_multi`. The label says which action was taken (`_labelIndex` from 0, `_label_Action` from 1),
its probability, and its cost: the negative reward. `_skipLearn` marks a decision that was never
used, `pdrop` is the probability with which rows like this one were left out of the log. Where no
reward came in time, the service has put its default one into the cost: it is taken as it stands.
The format: https://github.com/VowpalWabbit/vowpal_wabbit/wiki/DSJSON. `to_dsjson` writes it.
Knows no file and no Parquet.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from features.encoder import Encoder
from offline_eval.importing import context
from offline_eval.importing.rows import (
    AS_THEY_ARE,
    Draw,
    Range,
    Refused,
    Skipped,
    decision,
    number,
    summing_to_1,
)
from policy.records import Context, LoggedDecision, Outcome, Vector

FLOAT32 = 1e-4  # how far numbers may differ that went through float32, relative to them
OUR_CONTEXT = "x"  # the namespace that `to_dsjson` puts our context into ...
_OURS = re.compile(  # ... and the model id, VWState.m, that says so
    r"pointsman/(?P<version>.*)/(?P<snapshot>[0-9]{1,18})/(?P<encoder>[^/]*)", re.DOTALL
)

Object = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """How a log is to be understood. `arm_id` is a JSON pointer (RFC 6901) into an action's
    features; `rewards` are put to 0 to 1."""

    policy: str = "imported"
    arm_id: str | None = None
    rewards: Range = AS_THEY_ARE

    def __post_init__(self) -> None:
        if self.arm_id is not None and not self.arm_id.startswith("/"):
            raise ValueError(f"a JSON pointer starts with '/', got {self.arm_id!r}")

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.default()

    def read(
        self, lines: Iterable[str | bytes], source: str = "line", seen: set[str] | None = None
    ) -> Iterator[LoggedDecision | Skipped]:
        """One row, or the reason why there is none, for each line that isn't blank.

        A row without `Timestamp` gets its line number as time, which keeps the order; one without
        `EventId` gets `source` and its line number as id. Ids in `seen`, which grows, are skipped.
        """
        seen = set() if seen is None else seen
        for at, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = self._row(_parse(line), at, source)
                decision_id = row.decision.decision_id
                if decision_id in seen:
                    raise Refused(f"EventId {decision_id!r} has been there before")
                seen.add(decision_id)
                yield row
            except Refused as reason:
                yield Skipped(at, str(reason))

    def _row(self, row: Object, line: int, source: str) -> LoggedDecision:
        _of_a_bandit(row)
        shared, actions = _context(row)
        label, index, p = _label(row), *_ranked(row, len(actions))
        chosen = _chosen(label, index, len(actions))
        if chosen not in index:
            raise Refused(f"action {chosen + 1} was taken, but `a` doesn't hold it")
        pdrop = number(row.get("pdrop", 0.0), "pdrop", 0.0, 1.0)
        if pdrop == 1.0:
            raise Refused("pdrop 1: such a row can't have been kept")
        arms = self._arms(actions)
        order = np.argsort(index)  # an action set stands in the order of `_multi`, like a catalog's
        draw = Draw(tuple(arms[index[i]] for i in order), p[order], arms[chosen])
        _same_probability(label, draw.propensity, pdrop)
        used = not (row.get("_skipLearn") or (row.get("DeferredAction") and not row.get("o")))
        version, snapshot, encoder, x = self._made_by(row, shared)
        decision_id = str(row.get("EventId") or f"{source}-{line}")
        at_ms = _made_at_ms(row, line)
        made = decision(
            decision_id, self.policy, version, at_ms, draw, encoder, x, snapshot=snapshot
        )
        quality = None
        if used and "cost" in label:
            quality = self.rewards.quality(0.0 - number(label["cost"], "_label_cost"))  # no -0.0
        outcome = Outcome(quality=quality, executed=used, closed="cost" in label or not used)
        return LoggedDecision(made, outcome, stands_for=1.0 / (1.0 - pdrop))

    def _arms(self, actions: Sequence[Object]) -> list[str]:
        """An id per action; a repeated one is told apart by its place among its like."""
        ids: list[str] = []
        met: dict[str, int] = {}
        for action in actions:
            arm = _named(action) if self.arm_id is None else _pointed(action, self.arm_id)
            met[arm] = met.get(arm, 0) + 1
            ids.append(arm if met[arm] == 1 else f"{arm}#{met[arm]}")
        if len(set(ids)) < len(ids):
            raise Refused("two actions have the same id")
        return ids

    def _made_by(self, row: Object, shared: Object) -> tuple[str, int, str, Context]:
        """Version, snapshot, encoder and x: as we exported them, else encoded from the features."""
        state = row.get("VWState")
        model = str(state.get("m") or "") if isinstance(state, dict) else ""
        ours = _OURS.fullmatch(model)
        if ours and OUR_CONTEXT in shared:
            return (
                ours["version"],
                int(ours["snapshot"]),
                ours["encoder"],
                _vector(shared[OUR_CONTEXT]),
            )
        text = shared.get("_text")
        text = text if isinstance(text, str) else None
        x = context.encode(self._encoder, text, context.labels(shared))
        return model, 0, self._encoder.fingerprint, x


def _parse(line: str | bytes) -> Object:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Refused(f"not JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(row, dict):
        raise Refused("not a JSON object")
    return row


def _of_a_bandit(row: Object) -> None:
    """Refuse VW's other problems, which share the format."""
    shared = row.get("c")
    if "_label_ca" in row or "pdf" in row:
        raise Refused("continuous actions (CATS), not a choice among arms")
    if "c" not in row:
        if "RewardValue" in row or "Observations" in row:
            raise Refused("an outcome without its decision")
        if "_multi" in row:
            raise Refused("VW's plain JSON format, not dsjson: it has no `c` and no probabilities")
        raise Refused("no context `c`")
    if not isinstance(shared, dict):
        raise Refused("the context `c` must be an object")
    if "_slots" in shared or "_outcomes" in row:
        multi = shared.get("_multi")
        some = multi if isinstance(multi, list) else []
        if any(isinstance(action, dict) and "_slot_id" in action for action in some):
            raise Refused("slates: several slots per decision, each with actions of its own")
        raise Refused("conditional contextual bandit (CCB): several slots per decision")
    observed = row.get("o")
    for one in observed if isinstance(observed, list) else ():
        if isinstance(one, dict) and "_definitely_bad" in one:
            raise Refused("interaction-grounded learning (IGL): its feedback is no reward")
    # In apprentice mode the caller's own action, the first, was shown whatever was drawn; where it
    # wasn't the one drawn, the joiner has put a default for its reward.
    if row.get("_original_label_cost", row.get("_label_cost")) != row.get("_label_cost"):
        raise Refused(
            "the label's cost is not the original one (apprentice mode): the action was not shown"
        )


def _context(row: Object) -> tuple[Object, list[Object]]:
    """The shared part, and one object per action."""
    shared = dict(row["c"])
    actions = shared.pop("_multi", None)
    if not (isinstance(actions, list) and actions and all(isinstance(a, dict) for a in actions)):
        raise Refused("`c._multi` must be a list of at least one action's features")
    return shared, actions


def _label(row: Object) -> Object:
    """cost, probability, action and index as far as given; VW reads these names in any case."""
    given = row.get("_label")
    nested = {f"_label_{k}": v for k, v in given.items()} if isinstance(given, dict) else {}
    names = {
        "_label_cost": "cost",
        "_label_probability": "probability",
        "_label_action": "action",
        "_labelindex": "index",
    }
    both = {**nested, **row}.items()
    return {names[k.lower()]: v for k, v in both if k.lower() in names and v is not None}


def _ranked(row: Object, k: int) -> tuple[list[int], Vector]:
    """`a` as positions in `_multi`, and `p` parallel to it, summing to 1."""
    a, p = row.get("a"), row.get("p")
    if not isinstance(a, list) or not a or not all(type(i) is int for i in a):
        raise Refused("`a` must list the actions in ranked order, counted from 1")
    if not isinstance(p, list) or not all(type(v) in (int, float) for v in p):
        raise Refused("`p` must list the probabilities of the actions in `a`")
    if len(a) != len(p):
        raise Refused(f"`a` has {len(a)} actions, `p` has {len(p)} probabilities")
    index = [i - (0 not in a) for i in a]  # some simulators count from 0
    if len(set(index)) < len(index) or min(index) < 0 or max(index) >= k:
        raise Refused(f"`a` must name each of {k} actions at most once, got {a}")
    return index, summing_to_1(np.array(p, dtype=np.float64), "`p`")


def _chosen(label: Object, index: Sequence[int], k: int) -> int:
    """The position of the action that was taken; without a label, the first ranked."""
    at, action = label.get("index"), label.get("action")
    for name, value, least in (("_labelIndex", at, 0), ("_label_Action", action, 1)):
        if value is not None and not (type(value) is int and least <= value < least + k):
            raise Refused(f"{name} must be one of {k} actions, got {value!r}")
    if at is not None and action is not None and at + 1 != action:
        raise Refused(f"_labelIndex {at} and _label_Action {action} are not the same action")
    if at is not None:
        return int(at)
    return index[0] if action is None else int(action) - 1


def _same_probability(label: Object, propensity: float, pdrop: float) -> None:
    """Older converters multiplied the label's probability by that of the row being kept."""
    if propensity <= 0:
        raise Refused("the action that was taken has probability 0")
    if "probability" not in label:
        return
    said = number(label["probability"], "_label_probability", 0.0, 1.0 + FLOAT32)
    meant = (propensity, propensity * (1.0 - pdrop))
    if not any(math.isclose(said, value, rel_tol=10 * FLOAT32) for value in meant):
        raise Refused(f"_label_probability is {said:.6g}, but `p` says {propensity:.6g}")


def _made_at_ms(row: Object, number: int) -> int:
    stamp = row.get("Timestamp")
    if stamp is None:
        return number
    try:
        at = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        raise Refused(f"Timestamp must be ISO 8601, got {stamp!r}") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1_000)


def _vector(values: Any) -> Context:
    if not isinstance(values, list):
        raise Refused(f"`c.{OUR_CONTEXT}` must be a list of numbers")
    return np.array([number(value, f"`c.{OUR_CONTEXT}`") for value in values], dtype=np.float32)


def _named(action: Object) -> str:
    """`_tag`, `id`, the `id` of a namespace, `__aid`; else a digest of all features."""
    inner = (part.get("id") for part in action.values() if isinstance(part, dict))
    for value in (action.get("_tag"), action.get("id"), *inner, action.get("__aid")):
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    plain = orjson.dumps(action, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(plain, digest_size=6).hexdigest()


def _pointed(action: Object, pointer: str) -> str:
    value: Any = action
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise Refused(f"an action has nothing at {pointer}")
    if isinstance(value, dict | list | None) or value == "":
        raise Refused(f"an action has no plain value at {pointer}")
    return context.plain(value)
