"""Rows of figures for a person to read."""

from __future__ import annotations

from collections.abc import Mapping

Columns = Mapping[str, tuple[str, str]]
"""Figure -> title and format; the width comes from the format."""


def head(columns: Columns) -> str:
    """The titles over their columns."""
    return " ".join(f"{title:>{spec.partition('.')[0]}}" for title, spec in columns.values())


def cells(row: Mapping[str, float | int | str | None], columns: Columns) -> str:
    """One row; `-` where a figure can't be known."""
    made = []
    for column, (_, spec) in columns.items():
        value = row.get(column)
        width = spec.partition(".")[0]
        made.append(f"{'-':>{width}}" if value is None else f"{value:{spec}}")
    return " ".join(made)
