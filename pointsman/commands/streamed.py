"""`pointsman evaluate --stream`: a log that needn't fit in memory, here or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click

from offline_eval.estimating import target
from offline_eval.streaming.evaluation import READINGS, Cluster, Summary, Value, evaluate
from offline_eval.streaming.parts import Part, cut
from offline_eval.streaming.sums import Target
from pointsman.commands import logs
from pointsman.commands.logs import Options, aligned, between, figure
from pointsman.commands.settings import progress
from pointsman.commands.targets import NEVER

PLAIN: Mapping[str, Target] = {
    "logged": target.logged,
    "challenger": target.challenger,
    "uniform": target.uniform,
}
USUAL = ("logged", "uniform")
CONNECT_S = 5


@dataclass(frozen=True, slots=True)
class Streamed:
    """What was found of each target, on `parts` of a log."""

    path: str
    parts: Sequence[Part]
    found: Mapping[str, Summary]
    estimators: Sequence[str]  # the first one leads

    def text(self) -> list[str]:
        main = self.estimators[0]
        rows = [
            ["target", main, "95% interval", "rows", "ESS", "never tried", *self.estimators[1:]]
        ]
        rows += [self._row(name, one, main) for name, one in self.found.items()]
        head = f"{self.path}: {self._rows():,} rows in {len(self.parts):,} parts"
        return [head, *aligned(rows), *self._warnings()]

    def _rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def _row(self, name: str, one: Summary, main: str) -> list[str]:
        value = one.values[main]
        return [
            name,
            figure(value.value),
            between(value.interval),
            f"{one.counted:,}",
            f"{one.effective_rows:,.0f}",
            f"{one.unsupported:.1%}",
            *(figure(one.values[estimator].value) for estimator in self.estimators[1:]),
        ]

    def _warnings(self) -> list[str]:
        values = {name: one.values[self.estimators[0]] for name, one in self.found.items()}
        said = {name: value.why or value.interval.warning for name, value in values.items()}
        return [f"{name}: {why}" for name, why in said.items() if why]

    def figures(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "rows": self._rows(),
            "parts": len(self.parts),
            "targets": {name: _figures(one, self.estimators) for name, one in self.found.items()},
        }


def value(
    given: Options, targets: Sequence[str], estimators: Sequence[str], dask: str | None
) -> Streamed:
    """Value `targets` (USUAL without any) part by part, on the cluster at `dask` if given."""
    path, scales = given.log_path(), logs.scales(given)
    parts = cut(path, given.policy, given.from_ms, given.to_ms)
    if not parts:
        raise click.ClickException(f"{path}: no row to evaluate")
    found = {}
    with _cluster(dask) as client:
        for name in targets or USUAL:
            with progress(READINGS * len(parts)) as tick:
                found[name] = evaluate(
                    parts,
                    _target(name),
                    scales,
                    given.weights,
                    client=client,
                    progress=lambda done, of, tick=tick: tick(1),  # type: ignore[misc]
                )
    return Streamed(path, parts, found, estimators)


def _target(name: str) -> Target:
    if name == "config" or name.startswith("config:"):
        raise click.UsageError(
            "--stream values logged, challenger, uniform, never:plans and arms: a policy that "
            "learns first needs the log in memory"
        )
    if name in NEVER:
        return partial(target.never, kinds=NEVER[name])
    return PLAIN.get(name) or partial(target.one_arm, arm=name)


@contextmanager
def _cluster(address: str | None) -> Iterator[Cluster | None]:
    if address is None:
        yield None
        return
    try:
        import distributed  # noqa: PLC0415 - the extra `dask`
    except ImportError:
        raise click.ClickException("--dask needs the extra: pip install -e '.[dask]'") from None
    try:
        client: Any = distributed.Client(address, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise click.ClickException(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


def _figures(one: Summary, estimators: Sequence[str]) -> dict[str, Any]:
    plain = {k: v for k, v in asdict(one).items() if k != "values"}
    return plain | {"reward": {name: _value(one.values[name]) for name in estimators}}


def _value(value: Value) -> dict[str, Any]:
    if value.value is None:
        return {"value": None, "low": None, "high": None, "warning": None, "why": value.why}
    return logs.interval_figures(value.interval) | {"why": None}
