"""One of everything that is stored, as it is written today, and how each is read.

`python -m tests.formats` writes the files of formats that have none yet to tests/data/formats;
those that are there stay as they are: each is what an earlier release has written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.encoder import Encoder
from features.profile import profile
from features.query import Hints, Query
from offline_eval.log import files
from offline_eval.log.archive import Archive
from offline_eval.log.reading import Range, read_rows
from offline_eval.log.segments import (
    POSITION,
    STREAMS,
    Position,
    parsed,
    position_at,
    read_segments,
)
from offline_eval.log.writing import write_log
from pointsman.backup.manifest import File, Manifest
from policy.arms.arm import Arm
from policy.arms.catalog import Catalog
from policy.comparing import SIZE
from policy.config.schema import PolicyConfig
from policy.config.versions import read_config, write_config
from policy.plans.learned import PlanLearning
from policy.plans.plan import Plan, Step
from policy.records import Decision, LoggedDecision, Outcome, from_stored, to_stored
from policy.stored import FORMATS, opened, sealed
from policy.values import models
from policy.values.linear.model import LinearModel
from policy.values.nearest import NearestModel
from policy.values.protocol import ValueModel, ValuesView
from policy.values.snapshot import Header, State, unpack
from policy.values.vw.model import VwModel
from tests.offline_eval.rows import NOON, decision
from tests.offline_eval.streams import decided, told
from tests.policy import linear_model, vw_model

FOLDER = Path(__file__).parent / "data" / "formats"
HINTS = Hints(task_type="math", labels={"app": "x"})
PLAN = Plan(
    "cascade:a>b@0.7",
    "cascade",
    (Step("a", at_ms=0.0, log_latency=6.0), Step("b", quality_below=0.7)),
    None,
    (0.7, 0.2, 0.1),
    0,
)
MADE = decision(
    query="What is 1 + 1?",
    challenger="4",
    challenger_pmf=np.array([0.2, 0.3, 0.5]),
    share=0.1,
    challenger_encoder="e2",
    challenger_x=np.array([1.0, -0.3], dtype=np.float32),
    endpoint="eu",
    answered=np.array([1.0, 0.5, 1.0]),
    degraded="all_out",
)
CAME = Outcome(
    quality=0.8,
    latency_ms=120.0,
    cost_usd=0.01,
    error="wrong",
    executed_arm="c",
    executed=True,
    closed=True,
    at_ms=NOON + 5,
    quality_assumed=True,
    reported_quality=0.5,
    reported_latency_ms=100.0,
    reported_cost_usd=0.02,
    corrected_by="me",
    correction_reason="a typing error",
)
ROW = LoggedDecision(MADE, CAME, stands_for=4.0)
DECIDED = replace(
    MADE,
    task="math",
    gave_way=("latency",),
    unavailable=(("d", "out"),),
    plan=PLAN,
    session="s1",
    turn=2,
    draw_id="d0",
    logged_by="token",
)
CATALOG = Catalog(
    (
        Arm(
            id="a",
            provider="p",
            model="m",
            usd_per_mtok_in=0.1,
            usd_per_mtok_out=0.2,
            context_window_tokens=8192,
            capabilities=("chat", "tools"),
            priors={"code": 0.75},
            endpoints=("http://127.0.0.1:8001/v1",),
        ),
    )
)
AT = Position("5-0", "7-0", 1_000, "origin")
USED = Range("data/log", 20, 1_000, 2_000, "c0ffee")
MANIFEST = Manifest(1_000, "0.1.0", 3, "data/log", True, {}, "", {"a": File(1, "c0ffee")})


@dataclass(frozen=True)
class Stored:
    """A file of a format: which, how it is named, its bytes as written today, what reads them, and
    what it comes to: plain figures that a file is held against ever after."""

    kind: str
    name: str
    written: bytes
    read: Callable[[bytes], Any]

    def path(self, number: int | None = None) -> Path:
        stem, _, ending = self.name.partition(".")
        return FOLDER / f"{stem}-{FORMATS[self.kind] if number is None else number}.{ending}"


def everything() -> list[Stored]:
    """One of each, whatever is optional included."""
    return [
        *_states(),
        Stored("encoder", "encoder.bin", Encoder.default(d_text=0).to_bytes(), _encoded),
        Stored("version", "version.json", write_config(PolicyConfig()), _configured),
        Stored("catalog", "catalog.json", CATALOG.to_stored(), Catalog.from_stored),
        Stored("decision", "decision.json", to_stored(DECIDED), _decided),
        Stored("log", "log.parquet", _logged(), _rows),
        *(
            Stored("log", f"log-{stream}.parquet", data, partial(_segment, stream))
            for stream, data in _archived().items()
        ),
        Stored("position", "position.json", _position(), _position_of),
        Stored("backup", "backup.json", MANIFEST.to_json(), Manifest.of),
        Stored("range", "range.json", sealed("range", asdict(USED)), lambda b: opened("range", b)),
    ]


def _states() -> list[Stored]:
    """Checkpoint and snapshot of each value model, after the same events."""
    learned = PlanLearning()
    learned.add(PLAN, np.array([0.5, 0.2, np.nan]))
    learned.add_latencies(["a"], np.array([100.0]))
    header = Header("linear", "1", "e", "5-0", 40, {"1": [1.0] * SIZE}, plans=learned.to_record())
    found = []
    for kind, model in _models().items():
        its = replace(header, kind=kind)
        checkpoint = State(replace(its, ledger="bGVkZ2Vy"), model.to_parts()).pack()
        standing = {"earned": 1.0, "variance": 0.5, "noise": 0.25}
        snapshot = State(replace(its, standing=standing), model.view().to_parts()).pack()
        found += [
            Stored("snapshot", f"{kind}-checkpoint.bin", checkpoint, _sums),
            Stored("snapshot", f"{kind}-snapshot.bin", snapshot, _forecast),
        ]
    return found


def _models() -> Mapping[str, ValueModel]:
    d, groups = linear_model.D, linear_model.GROUPS
    linear = LinearModel(groups, linear_model.SCALES)
    nearest = NearestModel(d, linear_model.SCALES, 4, 50)
    vw = VwModel(vw_model.GROUPS, vw_model.SCALES, "mtr")
    for model in (linear, nearest):
        model.learn(linear_model.events(40, missing=0.2))
    vw.learn(vw_model.events(40))
    return {"linear": linear, "nearest": nearest, "vw": vw}


def _sums(blob: bytes) -> Any:
    """What a checkpoint has learned. What a linear model makes of its sums is no part of them."""
    header, parts = (state := unpack(blob)).header, state.parts
    model = models.read_model(header.kind, parts)
    if isinstance(model, LinearModel):
        figures = [float(np.abs(values).sum()) for values in model.sums().values()]
    else:
        figures = _figures(model.view())
    slope = PlanLearning.of(header.plans or "").slope
    return [header.events, model.events, slope, *figures]


def _forecast(blob: bytes) -> Any:
    """What a snapshot lets expect."""
    state = unpack(blob)
    return [state.header.events, *_figures(models.read_view(state.header.kind, state.parts))]


def _figures(view: ValuesView) -> list[float]:
    arms = [arm for arm in ("arm-0", "arm-1", "a", "b") if arm in view.arms]  # type: ignore[attr-defined]
    catalog = linear_model.plain(arms) if "a" not in arms else vw_model.CATALOG
    bound = view.bind(catalog.ids, catalog=catalog)
    x = np.array([[1.0, *[0.1] * 7]], dtype=np.float32)
    index = np.arange(len(catalog))
    told = bound.forecast(x, index, np.full((1, len(catalog)), 0.01), linear_model.MIXED)
    return [float(value) for value in [*told.utility.ravel(), *told.outcome.ravel()]]


def _configured(data: bytes) -> Any:
    return read_config(data).model_dump(mode="json")


def _encoded(blob: bytes) -> Any:
    query = Query(text="What is 1 + 1?")
    encoder = Encoder.from_bytes(blob)
    return encoder.encode(query, HINTS, profile(query, HINTS)).tolist()


def _decided(record: bytes) -> Decision:
    other = MADE.challenger_x
    return from_stored(record, MADE.x.tobytes(), b"" if other is None else other.tobytes())


def _logged() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_log([ROW], folder)
        (file,) = Path(folder).rglob("*.parquet")
        return file.read_bytes()


def _rows(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        day = Path(folder, "policy=default", "day=2024-10-04")
        day.mkdir(parents=True)
        (day / "a.parquet").write_bytes(data)
        return list(read_rows(folder))


def _archived() -> Mapping[str, bytes]:
    """Both files of an archive."""
    with tempfile.TemporaryDirectory() as folder:
        event = told("1-0", quality="1.0", unforeseen="x")
        Archive(folder, "default").add([decided("1-0", MADE)], [event])
        found = {s: Path(folder, s).rglob("*.parquet") for s in STREAMS}
        return {stream: next(paths).read_bytes() for stream, paths in found.items()}


def _segment(stream: str, data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "1-0_1-0_0.parquet")
        file.write_bytes(data)
        on, _ = files.filesystem(folder)
        return read_segments(on, [s for s in [parsed(str(file))] if s], stream).to_pylist()


def _position() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Archive(folder, "default").commit(AT)
        return Path(folder, "policy=default", POSITION).read_bytes()


def _position_of(data: bytes) -> Position | None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "policy=default").mkdir()
        Path(folder, "policy=default", POSITION).write_bytes(data)
        return position_at(*files.filesystem(folder), "default")


FIGURES = FOLDER / "figures.json"  # by file: what each comes to, where other code decides that


if __name__ == "__main__":
    figures = json.loads(FIGURES.read_bytes()) if FIGURES.exists() else {}
    for one in everything():
        path = one.path()
        if not path.exists():
            path.write_bytes(one.written)
            if one.kind in ("snapshot", "encoder", "version"):
                figures[path.name] = one.read(one.written)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
