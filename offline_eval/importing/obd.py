"""Logs in the layout of the Open Bandit Dataset.

Saito, Aihara, Matsutani and Narita 2020, "Open Bandit Dataset and Pipeline",
https://arxiv.org/abs/2008.07146, sections 3 and 4: one row per item that was shown at one of three
positions, with the probability that the logging policy showed it there. As there, position is part
of the context, and each row a decision of its own. Rewards are clicks.

Only the shown item's probability was logged. Of the uniform policy that is the whole pmf. Of
Bernoulli Thompson sampling, which learned on as the log was made, what is left is shared out among
the other items in proportion to how often the log shows them at that position: importance weights
use none of that guess, but a `pmf` of such a row is one. Its propensities were estimated by
simulation, in steps of 5e-6; one of 1e-6 seems to stand for "not once".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.encoder import Encoder
from offline_eval.importing import context, source
from offline_eval.importing.rows import Draw, decision
from policy.records import Context, LoggedDecision, Outcome, Vector

Index = NDArray[np.int64]

USER = ("user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3")
AFFINITY = "user-item_affinity_"  # one column per item
NEEDED = ("timestamp", "item_id", "position", "click", "propensity_score", *USER)


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """n items that were shown, as the dataset has them; `name` is the file's."""

    name: str
    k: int  # items there are
    made_at_ms: Index  # (n,)
    item: Index  # (n,) in 0..k
    position: Index  # (n,) from 1
    click: Vector  # (n,) 0 or 1
    propensity: Vector  # (n,)
    user: tuple[tuple[str, ...], ...]  # (n,) of hashed features

    def __len__(self) -> int:
        return len(self.item)

    def shares(self) -> Vector:
        """How often each item was shown at each position, (positions, k): the time average of a
        policy that looks at nothing else."""
        counts = np.zeros((int(self.position.max()), self.k))
        np.add.at(counts, (self.position - 1, self.item), 1.0)
        shares: Vector = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return shares


def read(file: Path) -> Feedback:
    """A file of the dataset, CSV or Parquet, packed or not.

    Raises
    ------
    ValueError
        If it is of another layout.
    """
    with source.opened(file) as stream:
        table = _table(file, stream)
    lacking = [name for name in NEEDED if name not in table.column_names]
    k = sum(name.startswith(AFFINITY) for name in table.column_names)
    if lacking or not k:
        lacking += [] if k else [f"{AFFINITY}..."]
        raise ValueError(
            f"{file}: not the Open Bandit Dataset's layout, without {', '.join(lacking)}"
        )
    item = table["item_id"].to_numpy().astype(np.int64)
    position = table["position"].to_numpy().astype(np.int64)
    if len(item) and not 0 <= item.min() <= item.max() < k:
        raise ValueError(f"{file}: expected item_id in 0 to {k - 1}, as there are affinities")
    if len(item) and position.min() < 1:
        raise ValueError(f"{file}: expected positions from 1, got {position.min()}")
    return Feedback(
        name=source.name(file),
        k=k,
        made_at_ms=np.array([_ms(at) for at in table["timestamp"].to_pylist()], dtype=np.int64),
        item=item,
        position=position,
        click=table["click"].to_numpy().astype(np.float64),
        propensity=table["propensity_score"].to_numpy().astype(np.float64),
        user=tuple(zip(*(table[name].to_pylist() for name in USER), strict=True)),
    )


def _table(file: Path, stream: io.BufferedReader) -> pa.Table:
    whole = io.BytesIO(stream.read()) if source.is_parquet(stream) else None
    try:
        if whole is not None:
            return pq.read_table(whole)
        texts = dict.fromkeys(("timestamp", *USER), "string")
        return pcsv.read_csv(stream, convert_options=pcsv.ConvertOptions(column_types=texts))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: {str(error).splitlines()[0]}") from error


def rows(feedback: Feedback, policy: str = "imported") -> Iterator[LoggedDecision]:
    """As records, in the dataset's order; ids say the file and the row."""
    encoder = Encoder.default()

    @cache
    def encoded(user: tuple[str, ...], position: int) -> Context:
        labels = dict(zip(USER, user, strict=True))
        return context.encode(encoder, None, labels | {"position": str(position)})

    arms = tuple(f"item-{i}" for i in range(feedback.k))
    digits = len(str(len(feedback)))
    for i, pmf in enumerate(_pmfs(feedback)):
        made = decision(
            f"{feedback.name}-{i:0{digits}}",
            policy,
            feedback.name,
            int(feedback.made_at_ms[i]),
            Draw(arms, pmf, arms[feedback.item[i]]),
            encoder.fingerprint,
            encoded(feedback.user[i], int(feedback.position[i])),
        )
        yield LoggedDecision(made, Outcome(quality=float(feedback.click[i]), closed=True))


def _pmfs(feedback: Feedback) -> Iterator[Vector]:
    """(k,) for each row: its propensity, and what is left among the other items."""
    k, uniform = feedback.k, np.allclose(feedback.propensity, 1.0 / feedback.k)
    shares = np.full((0, k), 0.0) if uniform else feedback.shares() + 0.5 / len(feedback)
    for item, position, propensity in zip(
        feedback.item, feedback.position, feedback.propensity, strict=True
    ):
        pmf = np.ones(k) if uniform else shares[position - 1].copy()
        pmf[item] = 0.0
        pmf *= (1.0 - propensity) / pmf.sum()
        pmf[item] = propensity
        yield pmf


def _ms(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1_000)
