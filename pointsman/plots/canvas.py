"""What all pictures share: a figure that needs no display, colours, and the way to a file."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

DPI = 120
GREY = "#555555"
BLUE = "#0072b2"
ALARM = "#d55e00"  # vermilion: told from blue by every kind of colour vision

# Okabe and Ito 2008, "Color Universal Design", https://jfly.uni-koeln.de/color/
SAFE = (BLUE, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", ALARM, "#f0e442", "#000000")


class Picture(Figure):
    """A figure that a notebook shows by itself. Not of pyplot: it belongs to whoever holds it, and
    needs no backend to be chosen."""

    def _repr_png_(self) -> bytes:
        return png(self)


def blank(width: float, height: float) -> Figure:
    """A picture of so many inches."""
    return Picture(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file."""
    path.write_bytes(png(figure))


def colours(k: int) -> Sequence[str]:
    """k colours that people with any colour vision tell apart, if there are at most eight; beyond
    that, steps from dark to light."""
    if k <= len(SAFE):
        return SAFE[:k]
    ramp = mpl.colormaps["viridis"].resampled(k)
    return [mpl.colors.to_hex(ramp(i)) for i in range(k)]
