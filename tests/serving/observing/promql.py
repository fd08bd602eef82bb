"""PromQL over what /metrics showed, as far as our alerts use it: comparisons, arithmetic, `unless`,
`sum by`, `increase`, `time()`. Parsed by promql-parser; anything else is an error."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

FILE = Path(__file__).parents[3] / "deploy" / "prometheus" / "alerts.yml"
RULES = yaml.safe_load(FILE.read_text("utf-8"))["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES}

Series = tuple[tuple[str, str], ...]  # labels, sorted
Vector = dict[Series, float]

MATCH = {"MatchOp.Equal": operator.eq, "MatchOp.NotEqual": operator.ne}
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
COUNT: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}


@dataclass(frozen=True)
class Scrape:
    """All samples, by name, as of `at_s`; `up` is Prometheus' own."""

    at_s: float
    samples: dict[str, Vector]

    @classmethod
    def of(cls, at_s: float, text: str | None) -> Scrape:
        """`text` is None where nothing answered."""
        samples: defaultdict[str, Vector] = defaultdict(dict)
        samples["up"][("job", "pointsman"),] = float(text is not None)
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at_s, samples)


def firing(scrapes: Sequence[Scrape], now_s: float) -> set[str]:
    """Our alerts whose condition holds."""
    found = {name: evaluated(rule["expr"], scrapes, now_s) for name, rule in ALERTS.items()}
    return {name for name, value in found.items() if value}


def evaluated(expression: str, scrapes: Sequence[Scrape], now_s: float) -> Vector | float:
    """As of `now_s`, the newest scrape being the current one."""
    return _value(promql_parser.parse(expression), scrapes, now_s)


def selectors(expression: str) -> list[Any]:
    """What an expression reads: name and matchers of each."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def _value(node: Any, scrapes: Sequence[Scrape], now_s: float) -> Vector | float:
    match node:
        case promql_parser.NumberLiteral():
            found: Vector | float = float(node.val)
        case promql_parser.ParenExpr():
            found = _value(node.expr, scrapes, now_s)
        case promql_parser.VectorSelector():
            found = _selected(node, scrapes[-1])
        case promql_parser.AggregateExpr() if str(node.op) == "sum":
            found = _summed(node, scrapes, now_s)
        case promql_parser.BinaryExpr():
            left, right = (_value(side, scrapes, now_s) for side in (node.lhs, node.rhs))
            found = _both(str(node.op), left, right)
        case promql_parser.Call() if node.func.name == "time":
            found = now_s
        case promql_parser.Call() if node.func.name == "increase":
            found = _increase(node.args[0], scrapes, now_s)
        case _:
            raise NotImplementedError(node.prettify())
    return found


def _increase(matrix: Any, scrapes: Sequence[Scrape], now_s: float) -> Vector:
    """Of series that were there before, as Prometheus has it, but not extrapolated."""
    since = now_s - matrix.range.total_seconds()
    within = [_selected(matrix.vector_selector, s) for s in scrapes if s.at_s >= since]
    first, last = within[0], within[-1]
    return {series: end - first[series] for series, end in last.items() if series in first}


def _selected(selector: Any, scrape: Scrape) -> Vector:
    def matches(series: Series) -> bool:
        labels = dict(series)
        return all(
            MATCH[str(m.op)](labels.get(m.name, ""), m.value) for m in selector.matchers.matchers
        )

    return {s: v for s, v in scrape.samples.get(selector.name, {}).items() if matches(s)}


def _summed(node: Any, scrapes: Sequence[Scrape], now_s: float) -> Vector:
    by = node.modifier.labels if node.modifier is not None else []
    of = _value(node.expr, scrapes, now_s)
    assert isinstance(of, dict)
    sums: defaultdict[Series, float] = defaultdict(float)
    for series, value in of.items():
        sums[tuple((name, label) for name, label in series if name in by)] += value
    return dict(sums)


def _both(name: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if name == "unless":
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        return {series: value for series, value in left.items() if series not in right}
    if isinstance(left, float) and isinstance(right, float):
        return COUNT[name](left, right)
    every = left.keys() if isinstance(left, dict) else right.keys()  # type: ignore[union-attr]
    pairs = {s: (_at(left, s), _at(right, s)) for s in every}
    known = {s: (a, b) for s, (a, b) in pairs.items() if a is not None and b is not None}
    if name in COMPARE:
        return {series: a for series, (a, b) in known.items() if COMPARE[name](a, b)}
    return {series: COUNT[name](a, b) for series, (a, b) in known.items()}


def _at(value: Vector | float, series: Series) -> float | None:
    return value if isinstance(value, float) else value.get(series)
