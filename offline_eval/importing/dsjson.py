"""Logs of Azure Personalizer and of Vowpal Wabbit's decision service, in and out.

One JSON object per line. `c` is the context: its `_multi` has one object of features per action,
all else in it is shared. `a` ranks the actions, counted from 1, and `p` runs parallel to `a`, not
to `_multi`. The label says which action was taken (`_labelIndex` from 0, `_label_Action` from 1),
its probability, and its cost: the negative reward. `_skipLearn` marks a decision that was never
used, `pdrop` is the probability with which rows like this one were left out of the log. Where no
reward came in time, the service has put its default one into the cost: it is taken as it stands.
The format: https://github.com/VowpalWabbit/vowpal_wabbit/wiki/DSJSON. Knows no file and no Parquet.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from policy import objective
from policy.arms.catalog import Catalog
from policy.objective import Scales, Weights
from policy.records import Context, Decision, LoggedDecision, Outcome, Vector

MAX_LABELS = 32  # what hints may have, and each name and value of them
MAX_CHARS = 64
QUALITY = Weights(1.0, 0.0, 0.0)
FLOAT32 = 1e-4  # how far numbers may differ that went through float32, relative to them
_CONTEXT = "x"  # the namespace that `write` puts our context into ...
_OURS = re.compile(  # ... and the model id, VWState.m, that says so
    r"pointsman/(?P<version>.*)/(?P<snapshot>[0-9]{1,18})/(?P<encoder>[^/]*)", re.DOTALL
)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that gave no row, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Reader:
    """How a log is to be understood. `arm_id` is a JSON pointer (RFC 6901) into an action's
    features; `reward_range` (least, most) is put to 0 to 1."""

    policy: str = "imported"
    arm_id: str | None = None
    reward_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        least, most = self.reward_range
        if not (math.isfinite(least) and math.isfinite(most) and least < most):
            raise ValueError(f"a reward range needs MIN < MAX, both finite, got {least} and {most}")
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
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = self._row(_parse(line), number, source)
                decision_id = row.decision.decision_id
                if decision_id in seen:
                    raise _Refused(f"EventId {decision_id!r} has been there before")
                seen.add(decision_id)
                yield row
            except _Refused as reason:
                yield Skipped(number, str(reason))

    def _row(self, row: Object, number: int, source: str) -> LoggedDecision:
        _of_a_bandit(row)
        context, actions = _context(row)
        label, index, p = _label(row), *_ranked(row, len(actions))
        chosen = _chosen(label, index, len(actions))
        if chosen not in index:
            raise _Refused(f"action {chosen + 1} was taken, but `a` doesn't hold it")
        pdrop = _number(row.get("pdrop", 0.0), "pdrop", 0.0, 1.0)
        if pdrop == 1.0:
            raise _Refused("pdrop 1: such a row can't have been kept")
        arms = self._arms(actions)
        order = np.argsort(index)  # an action set stands in the order of `_multi`, like a catalog's
        ids, pmf = tuple(arms[index[i]] for i in order), p[order]
        propensity = float(p[index.index(chosen)])
        _same_probability(label, propensity, pdrop)
        used = not (row.get("_skipLearn") or (row.get("DeferredAction") and not row.get("o")))
        version, snapshot, encoder, x = self._made_by(row, context)
        k = len(ids)
        decision = Decision(
            decision_id=str(row.get("EventId") or f"{source}-{number}"),
            policy=self.policy,
            version=version,
            snapshot=snapshot,
            catalog="",
            encoder=encoder,
            made_at_ms=_made_at_ms(row, number),
            arm=arms[chosen],
            propensity=propensity,
            confidence=None,
            arms=ids,
            pmf=pmf,
            predicted=np.full((k, 3), np.nan),
            prompt_tokens=0,
            output_tokens=0,
            weights=QUALITY,
            x=x,
        )
        quality = self._quality(label) if used else None
        outcome = Outcome(quality=quality, executed=used, closed="cost" in label or not used)
        return LoggedDecision(decision, outcome, stands_for=1.0 / (1.0 - pdrop))

    def _quality(self, label: Object) -> float | None:
        if "cost" not in label:
            return None
        least, most = self.reward_range
        reward = 0.0 - _number(label["cost"], "_label_cost")  # 0 - 0 is 0, -0.0 isn't
        if not least <= reward <= most:
            raise _Refused(f"reward {reward:g} is outside {least:g} to {most:g}: give its range")
        return (reward - least) / (most - least)

    def _arms(self, actions: Sequence[Object]) -> list[str]:
        """An id per action; a repeated one is told apart by its place among its like."""
        ids: list[str] = []
        met: dict[str, int] = {}
        for action in actions:
            arm = _named(action) if self.arm_id is None else _pointed(action, self.arm_id)
            met[arm] = met.get(arm, 0) + 1
            ids.append(arm if met[arm] == 1 else f"{arm}#{met[arm]}")
        if len(set(ids)) < len(ids):
            raise _Refused("two actions have the same id")
        return ids

    def _made_by(self, row: Object, context: Object) -> tuple[str, int, str, Context]:
        """Version, snapshot, encoder and x: as we exported them, else encoded from the features."""
        state = row.get("VWState")
        model = str(state.get("m") or "") if isinstance(state, dict) else ""
        ours = _OURS.fullmatch(model)
        if ours and _CONTEXT in context:
            return (
                ours["version"],
                int(ours["snapshot"]),
                ours["encoder"],
                _vector(context[_CONTEXT]),
            )
        text = context.get("_text")
        query = Query(text=text) if isinstance(text, str) and text else None
        hints = Hints(labels=labels(context))
        x = self._encoder.encode(query, hints, profile(query, hints))
        return model, 0, self._encoder.fingerprint, x


class _Refused(Exception):
    """Why a line gives no row."""


def labels(context: Mapping[str, Any]) -> dict[str, str]:
    """The shared features as hint labels: dotted path -> value, the first 32 in their order.

    As in VW, what begins with `_` is no feature, nor is null, and a list of objects is transparent.
    Longer names and values keep their head and a digest.

    >>> labels({"User": [{"weather": "Sunny", "age": 30}], "_synthetic": False, "vip": True})
    {'User.weather': 'Sunny', 'User.age': '30', 'vip': 'true'}
    """
    found: dict[str, str] = {}
    for path, value in _scalars(context, ()):
        if len(found) == MAX_LABELS:
            break
        found.setdefault(_short(".".join(path)), _short(value))
    return found


def write(
    rows: Iterable[LoggedDecision],
    catalog: Catalog | None = None,
    scales: Mapping[str, Scales] | None = None,
) -> Iterator[str]:
    """Lines that `vw --dsjson --cb_adf` learns from and that `Reader` reads back.

    The cost is the negative reward under the row's own objective with the `scales` of its policy;
    without any, the negative quality. A row whose reward isn't complete has no label, and neither
    has one whose arm was not the one executed: it is marked `_skipLearn`, which not every reader
    heeds. The context goes out as the namespace `x`, an arm's id and what `catalog` knows of it as
    the arm's features.
    """
    for row in rows:
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
            _CONTEXT: [float(value) for value in decision.x],
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


def _parse(line: str | bytes) -> Object:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _Refused(f"not JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(row, dict):
        raise _Refused("not a JSON object")
    return row


def _of_a_bandit(row: Object) -> None:
    """Refuse VW's other problems, which share the format."""
    context = row.get("c")
    if "_label_ca" in row or "pdf" in row:
        raise _Refused("continuous actions (CATS), not a choice among arms")
    if "c" not in row:
        if "RewardValue" in row or "Observations" in row:
            raise _Refused("an outcome without its decision")
        if "_multi" in row:
            raise _Refused("VW's plain JSON format, not dsjson: it has no `c` and no probabilities")
        raise _Refused("no context `c`")
    if not isinstance(context, dict):
        raise _Refused("the context `c` must be an object")
    if "_slots" in context or "_outcomes" in row:
        multi = context.get("_multi")
        some = multi if isinstance(multi, list) else []
        if any(isinstance(action, dict) and "_slot_id" in action for action in some):
            raise _Refused("slates: several slots per decision, each with actions of its own")
        raise _Refused("conditional contextual bandit (CCB): several slots per decision")
    observed = row.get("o")
    for one in observed if isinstance(observed, list) else ():
        if isinstance(one, dict) and "_definitely_bad" in one:
            raise _Refused("interaction-grounded learning (IGL): its feedback is no reward")
    # In apprentice mode the caller's own action, the first, was shown whatever was drawn; where it
    # wasn't the one drawn, the joiner has put a default for its reward.
    if row.get("_original_label_cost", row.get("_label_cost")) != row.get("_label_cost"):
        raise _Refused(
            "the label's cost is not the original one (apprentice mode): the action was not shown"
        )


def _context(row: Object) -> tuple[Object, list[Object]]:
    """The shared part, and one object per action."""
    context = dict(row["c"])
    actions = context.pop("_multi", None)
    if not (isinstance(actions, list) and actions and all(isinstance(a, dict) for a in actions)):
        raise _Refused("`c._multi` must be a list of at least one action's features")
    return context, actions


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
        raise _Refused("`a` must list the actions in ranked order, counted from 1")
    if not isinstance(p, list) or not all(type(v) in (int, float) for v in p):
        raise _Refused("`p` must list the probabilities of the actions in `a`")
    if len(a) != len(p):
        raise _Refused(f"`a` has {len(a)} actions, `p` has {len(p)} probabilities")
    index = [i - (0 not in a) for i in a]  # some simulators count from 0
    if len(set(index)) < len(index) or min(index) < 0 or max(index) >= k:
        raise _Refused(f"`a` must name each of {k} actions at most once, got {a}")
    pmf = np.array(p, dtype=np.float64)
    total = pmf.sum()
    if not (pmf >= 0).all() or not abs(total - 1.0) <= 10 * FLOAT32:
        raise _Refused(f"`p` must be >= 0 and sum to 1, got a sum of {total:.6g}")
    if abs(total - 1.0) > 1e-9:  # written as float32
        pmf = pmf / total
    return index, pmf


def _chosen(label: Object, index: Sequence[int], k: int) -> int:
    """The position of the action that was taken; without a label, the first ranked."""
    at, action = label.get("index"), label.get("action")
    for name, value, least in (("_labelIndex", at, 0), ("_label_Action", action, 1)):
        if value is not None and not (type(value) is int and least <= value < least + k):
            raise _Refused(f"{name} must be one of {k} actions, got {value!r}")
    if at is not None and action is not None and at + 1 != action:
        raise _Refused(f"_labelIndex {at} and _label_Action {action} are not the same action")
    if at is not None:
        return int(at)
    return index[0] if action is None else int(action) - 1


def _same_probability(label: Object, propensity: float, pdrop: float) -> None:
    """Older converters multiplied the label's probability by that of the row being kept."""
    if propensity <= 0:
        raise _Refused("the action that was taken has probability 0")
    if "probability" not in label:
        return
    said = _number(label["probability"], "_label_probability", 0.0, 1.0 + FLOAT32)
    meant = (propensity, propensity * (1.0 - pdrop))
    if not any(math.isclose(said, value, rel_tol=10 * FLOAT32) for value in meant):
        raise _Refused(f"_label_probability is {said:.6g}, but `p` says {propensity:.6g}")


def _made_at_ms(row: Object, number: int) -> int:
    stamp = row.get("Timestamp")
    if stamp is None:
        return number
    try:
        at = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        raise _Refused(f"Timestamp must be ISO 8601, got {stamp!r}") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1_000)


def _number(value: Any, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and least <= value <= most):
        bounds = "finite" if math.isinf(least) else f"in [{least:g}, {most:g}]"
        raise _Refused(f"{name} must be a number, {bounds}, got {value!r}")
    return float(value)


def _vector(values: Any) -> Context:
    if not isinstance(values, list):
        raise _Refused(f"`c.{_CONTEXT}` must be a list of numbers")
    return np.array([_number(value, f"`c.{_CONTEXT}`") for value in values], dtype=np.float32)


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
            raise _Refused(f"an action has nothing at {pointer}")
    if isinstance(value, dict | list | None) or value == "":
        raise _Refused(f"an action has no plain value at {pointer}")
    return _plain(value)


def _scalars(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not key.startswith("_"):
                yield from _scalars(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            named = isinstance(inner, Mapping)
            yield from _scalars(inner, path if named else (*path, str(i)))
    elif value is not None:
        yield path, _plain(value)


def _plain(value: str | float | bool) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _short(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: MAX_CHARS - 17]}~{digest}"
