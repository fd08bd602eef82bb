"""Pictures. Arrays and records in, a figure out: `save` writes it, `png` gives its bytes, and a
notebook shows it by itself."""

from pointsman.plots.canvas import png, save
from pointsman.plots.estimates import reward_by_task, values
from pointsman.plots.evidence import evidence
from pointsman.plots.frontier import frontier
from pointsman.plots.logs import arm_shares, calibration, weights
from pointsman.plots.replay import learning_curve
from pointsman.plots.traffic import before_and_after, compared, regrets, running

__all__ = [
    "arm_shares",
    "before_and_after",
    "calibration",
    "compared",
    "evidence",
    "frontier",
    "learning_curve",
    "png",
    "regrets",
    "reward_by_task",
    "running",
    "save",
    "values",
    "weights",
]
