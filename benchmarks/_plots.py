"""Curves that are read in light and in dark: no background, mid-grey text, colours that stand out from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # after use()
from matplotlib.axes import Axes

_GREY = "#808890"
# Okabe and Ito's colours, without black and yellow, that read on neither ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6fdf", "#7a8450")
_STYLE = {
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _GREY,
    "axes.titlesize": "medium",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": _GREY,
    "axes.grid": True,
    "legend.frameon": False,
    "legend.labelcolor": _GREY,
    "savefig.transparent": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "deadletter",
    "text.color": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}
Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves(axes: Axes, given: Curves, x: str, y: str, *, title: str = "", log: str = "", marks: bool = True) -> None:
    """Draw a line per name; ``x`` and ``y`` name the axes with their units, ``log`` which of them are logarithmic."""
    for at, (name, (xs, ys)) in enumerate(given.items()):
        style = ("-", "--", "-.", ":")[at % 4]
        axes.plot(xs, ys, style, label=name, marker="o" if marks else None, markersize=3.5, linewidth=1.6)
    axes.set(xlabel=x, ylabel=y, title=title)
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")


def written(path: Path, figure: plt.Figure) -> Path:
    """Save as SVG, or as what the path ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, bbox_inches="tight", metadata=metadata, dpi=110)
    plt.close(figure)
    return path


def panels(across: int, *, height: float = 3.4) -> tuple[plt.Figure, Sequence[Axes]]:
    """A figure with so many plots side by side."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(1, across, figsize=(5.2 * across, height), squeeze=False, layout="constrained")
    mpl.rcParams.update(_STYLE)
    return figure, list(axes[0])
