"""A run as a picture: a small panel for each case, and in it a bar for each contender with its time beside it,
and on it a line from quartile to quartile of the rounds.

Each panel has a scale of its own that begins at 0, so lengths can be compared within a panel. Needs matplotlib, which is no
dependency of treestore.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from treestore.bench.cases import ASYNC, LIMIT, LMDB, ON_POSTGRES, POSTGRES, SQLITE, TREESTORE
from treestore.bench.contenders.disk import DISK
from treestore.bench.report import sizes, time_text
from treestore.bench.run import Measured, Run
from treestore.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
COLOURS = {
    TREESTORE: "#0072b2",
    ASYNC: "#56b4e9",
    SQLITE: "#e69f00",
    LMDB: "#009e73",
    ON_POSTGRES: "#cc79a7",
    POSTGRES: "#d55e00",
    LIMIT: "#999999",
    DISK: "#999999",
}
"""Those of Okabe and Ito, which people with any kind of colour vision tell apart."""

_OTHER_COLOUR = "#f0e442"
_BAR = 0.17  # inches for a bar, and for the space around a panel
_AROUND = 0.62


def check() -> None:
    """Raises InvalidInput if nothing can be drawn here, before the time is spent on what would be."""
    try:
        import_module("matplotlib.figure")
    except ImportError as error:
        raise InvalidInput(f"needs matplotlib ({error}): pip install -e '.[dev]'", field="--plot") from error


def draw(run: Run, path: Path) -> None:
    """Write the picture, in the format that the file's suffix names (``.svg``, ``.png``). Raises OSError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    starts = range(0, len(run.measured), COLUMNS)
    bars = [max(len(measured.times) for measured in run.measured[start : start + COLUMNS]) for start in starts]
    heights = [count * _BAR + _AROUND for count in bars]
    # Text stays text in an SVG, and the same run gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "treestore", "font.family": "sans-serif", "font.size": 8}):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
        figure = Figure(figsize=(13, sum(heights) + 0.5), facecolor="white", layout=layout)
        panels = figure.subplots(len(bars), COLUMNS, squeeze=False, height_ratios=heights).flat
        for number, (panel, measured) in enumerate(zip(panels, run.measured, strict=False)):
            _draw_panel(panel, measured, bars[number // COLUMNS])
        for panel in list(figure.axes)[len(run.measured) :]:
            panel.set_axis_off()
        figure.suptitle(
            f"treestore beside other stores: {sizes(run)}; shorter is faster",
            fontsize=12,
            fontweight="bold",
        )
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_panel(panel: Axes, measured: Measured, bars: int) -> None:
    names = list(measured.times)
    medians = [times.median for times in measured.times.values()]
    places = range(len(names))
    low = [times.median - times.quartiles[0] for times in measured.times.values()]
    high = [times.quartiles[1] - times.median for times in measured.times.values()]
    panel.barh(places, medians, height=0.72, color=[COLOURS.get(name, _OTHER_COLOUR) for name in names])
    panel.errorbar(medians, places, xerr=(low, high), fmt="none", ecolor="#333333", elinewidth=0.8, capsize=1.5)
    most = max(median + above for median, above in zip(medians, high, strict=True))
    for place, median, above in zip(places, medians, high, strict=True):
        panel.text(median + above + most * 0.02, place, time_text(median), va="center", color="#222222")
    panel.set_xlim(0, most * 1.22)
    panel.set_ylim(bars - 0.4, -0.6)
    panel.set_yticks(list(places), names)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.set_title(measured.case.what, loc="left", x=-0.3, fontsize=9, fontweight="bold")  # above the names of the bars
