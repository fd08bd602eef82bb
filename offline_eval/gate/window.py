"""The part of a log that a version may be judged on: since arms or prices last changed, while the
present champion acted. Knows no verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_eval.log.data import LoggedData
from offline_eval.log.reading import read_table
from offline_eval.log.schema import SCHEMA

UNREAD = ("query", "challenger_x")  # neither is asked for, and both are large


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The rows since the last change of arms or prices, whoever decided them."""

    path: str
    policy: str
    catalog: str  # revision of the arms and prices that held
    from_ms: int  # when its first row was decided
    table: pa.Table

    @classmethod
    def last(cls, path: str, policy: str, since_ms: int | None = None) -> Window:
        """The newest of the log, or of what was decided from `since_ms` on.

        Raises
        ------
        ValueError
            If there is no log at `path`, or it has no row of this policy.
        """
        columns = read_table(path, policy, since_ms, columns=["catalog", "made_at_ms"])
        if not len(columns):
            raise ValueError(f"the log at {path} has no row of policy {policy!r}")
        catalogs = columns["catalog"].combine_chunks().dictionary_encode()
        changes = np.flatnonzero(np.diff(catalogs.indices.to_numpy()))
        first = int(changes[-1]) + 1 if len(changes) else 0
        revision = catalogs[first].as_py()
        from_ms = columns["made_at_ms"][first].as_py()
        names = [name for name in (*SCHEMA.names, "policy") if name not in UNREAD]
        table = read_table(path, policy, from_ms, columns=names)
        return cls(path, policy, revision, from_ms, table.filter(pc.field("catalog") == revision))

    def __len__(self) -> int:
        return len(self.table)

    def of(self, champion: str, after_ms: int = -1) -> Window:
        """What `champion` decided, later than `after_ms`.

        Raises
        ------
        ValueError
            If that is nothing.
        """
        acted = self.table.filter(pc.field("version") == champion)
        found = acted.filter(pc.field("made_at_ms") > after_ms)
        if len(found):
            return Window(self.path, self.policy, self.catalog, self.from_ms, found)
        if len(acted):
            since = datetime.fromtimestamp(after_ms / 1_000, UTC)
            raise ValueError(
                f"none of version {champion}'s {len(acted):,} rows since arms or prices last"
                f" changed, in the log at {self.path}, was decided after"
                f" {since:%Y-%m-%d %H:%M:%S} UTC, when the version to be judged had last learned"
                " or was rolled back"
            )
        others = ", ".join(sorted(set(self.table["version"].to_pylist())))
        raise ValueError(
            f"version {champion} is champion, but the {len(self):,} rows since arms or prices last"
            f" changed, in the log at {self.path}, were decided by version {others}"
        )

    def beside(self, challenger: str) -> Window | None:
        """The rows in which `challenger` ran in shadow; None where it never did."""
        found = self.table.filter(pc.field("challenger") == challenger)
        if not len(found):
            return None
        return Window(self.path, self.policy, self.catalog, self.from_ms, found)

    def challenger_encoder(self) -> str:
        """Who made the contexts that the challenger saw; several, where there were several."""
        own = pc.coalesce(self.table["challenger_encoder"], self.table["encoder"])
        return ", ".join(sorted(pc.unique(own).to_pylist()))

    def data(self) -> LoggedData:
        """As arrays."""
        return LoggedData.of(self.table)
