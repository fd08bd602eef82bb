"""All that Redis holds of ours, at one moment, as a table; and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serving.processes.embedded import SNAPSHOT, opened
from serving.store.connecting.clients import blocking, each
from serving.store.operating.contents import Item, read, write
from serving.store.operating.copying import copy

NAME = "redis.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.binary()),
        ("kind", pa.string()),
        ("expires_at_ms", pa.int64()),
        ("entry", pa.binary()),
        ("field", pa.binary()),
        ("value", pa.binary()),
    ]
)
ROWS = 4_096


@dataclass(slots=True)
class Saved:
    """How many keys there are, and the last id that each stream has given, by key."""

    keys: int = 0
    ends: dict[str, str] = field(default_factory=dict)


def save(url: str, to: Path) -> Saved:
    """Write the table. Each server is copied first, at one moment, and read from the copy, which
    needs as much memory for a while."""
    saved = Saved()
    with TemporaryDirectory(prefix="pointsman-backup-") as place, ExitStack() as stack:
        clients = {name: stack.enter_context(closing(c)) for name, c in each(url).items()}
        folders = [Path(place, str(i)) for i in range(len(clients))]
        for client, folder in zip(clients.values(), folders, strict=True):
            folder.mkdir()
            copy(client, folder / SNAPSHOT)
        with pq.ParquetWriter(to, SCHEMA, compression="zstd") as writer:
            for folder in folders:
                _save(folder, writer, saved)
    return saved


def _save(folder: Path, writer: Any, saved: Saved) -> None:
    with opened(folder) as copied, closing(blocking(copied, "")) as client:
        (folder / SNAPSHOT).unlink()  # it is in memory
        items, last = read(client), b""
        while some := list(islice(items, ROWS)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
            for item in some:
                saved.keys += item.key != last
                last = item.key
                if item.kind == "stream" and not item.field:
                    saved.ends[item.key.decode()] = item.entry.decode()


def load(file: Any, url: str, now_ms: int) -> int:
    """Write a table's keys into an empty Redis; how many."""
    return write(url, _items(pq.ParquetFile(file)), now_ms)


def _items(table: Any) -> Iterator[Item]:
    for batch in table.iter_batches(ROWS):
        rows: Iterable[Any] = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        yield from (Item(*row) for row in rows)
