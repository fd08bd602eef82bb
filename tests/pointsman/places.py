"""A service that has run, with a champion and a challenger, and rows of its log."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from features.encoder import Encoder
from offline_eval.log.writing import write_log
from pointsman.archiver import IN_FLIGHT_MS, Window, archive_burst
from pointsman.cli import cli
from policy.config.schema import Config, PolicyConfig
from policy.config.toml import parse
from policy.config.versions import write_config
from policy.objective import Weights
from policy.records import LoggedDecision, Outcome
from serving.store.learning import LearnerStore
from tests.offline_eval.rows import row
from tests.servers import http_service, settings_for
from tests.serving.challenging import UNIFORM, config

ENCODER = Encoder.default()


TEXT = config(UNIFORM, 'model = "linear"\n')


LARGE = {"small": 0.3, "large": 0.8}  # quality, where the challenger prefers what is better


SMALL = {"small": 0.8, "large": 0.3}


@dataclass(frozen=True)
class Place:
    """A service that has run, with version 1 as champion and 2 as its challenger; its log."""

    redis_url: str
    folder: Path
    catalog: str
    tells_mlflow: bool = False  # what takes the most of the gate's time

    @property
    def log(self) -> str:
        return str(self.folder / "log")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "POINTSMAN_REDIS_URL": self.redis_url,
            "POINTSMAN_CONFIG": str(self.folder / "pointsman.toml"),
            "POINTSMAN_LOG": self.log,
            "POINTSMAN_DATA": str(self.folder),
        }

    def run(self, *arguments: str) -> Result:
        if arguments[0] == "gate" and not self.tells_mlflow:
            arguments = (*arguments, "--no-mlflow")
        return CliRunner(env=self.environment).invoke(cli, arguments)

    def gated(self, *arguments: str) -> Any:
        done = self.run("gate", "default", *arguments, "--json")
        assert done.exit_code in (0, 3, 4), done.output
        return json.loads(done.stdout)

    def serve(self, text: str) -> Config:
        """Let a service start and stop with this file."""
        with http_service(settings_for(self.redis_url, self.folder, text)):
            return parse(text, "test")

    def register(
        self, config: PolicyConfig, encoder: Encoder = ENCODER, made_at_ms: int = 0
    ) -> str:
        with closing(LearnerStore(self.redis_url, "default")) as store:
            written = write_config(config)
            return store.register(
                config.fingerprint(encoder.fingerprint), written, encoder.to_bytes(), made_at_ms
            )


def served(redis_url: str, folder: Path) -> Place:
    """A service that has started and stopped there."""
    with http_service(settings_for(redis_url, folder, TEXT)):
        pass
    return Place(redis_url, folder, parse(TEXT, "test").arms.revision)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def decided(
    place: Place,
    n: int,
    quality: Mapping[str, float],
    *,
    start: int = 0,
    age_ms: int = 0,
    pmf: tuple[float, float] = (0.5, 0.5),
    **changes: Any,
) -> list[LoggedDecision]:
    """n rounds a second apart, the last `age_ms` ago: the champion draws from `pmf`, and version 2
    in its shadow would take "large" nine times of ten."""
    rng = np.random.default_rng(start)
    newest = now_ms() - age_ms
    x = np.zeros(ENCODER.d, dtype=np.float32)
    x[0] = 1.0
    given = {
        "version": "1",
        "catalog": place.catalog,
        "encoder": ENCODER.fingerprint,
        "arms": ("small", "large"),
        "pmf": np.array(pmf),
        "predicted": np.tile([0.5, 500.0, 0.001], (2, 1)),
        "weights": Weights(0.8, 0.0, 0.2),
        "challenger": "2",
        "challenger_pmf": np.array([0.1, 0.9]),
        "x": x,
    }
    rows = []
    for i in range(start, start + n):
        drawn = int(rng.random() >= pmf[0])
        arm = ("small", "large")[drawn]
        good = float(rng.random() < quality[arm])
        outcome = Outcome(quality=good, latency_ms=500.0, cost_usd=0.001, closed=True)
        own = {
            "arm": arm,
            "propensity": pmf[drawn],
            "made_at_ms": newest - 1_000 * (start + n - 1 - i),
        }
        rows.append(row(f"d{i}", outcome, **{**given, **own, **changes}))
    return rows


def write(place: Place, rows: list[LoggedDecision]) -> None:
    assert write_log(rows, place.log) == len(rows)


def archived(place: Place) -> None:
    """Archive all that was decided, once its reward window has passed."""
    time.sleep(1.1 + IN_FLIGHT_MS / 1_000)
    archive_burst(place.redis_url, place.log, {"default": Window(1_000)})
