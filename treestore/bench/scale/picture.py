"""Tables as a picture: lines over the size where they are for sizes, else bars; both on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treestore.bench.report import time_text
from treestore.bench.tables import Table, Topic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#f0e442")
"""Those of Okabe and Ito, which people with any kind of colour vision tell apart."""

_MARKS = "osD^vP*X"


def draw(found: Sequence[Topic], path: Path) -> None:
    """Write the picture, in the format that the file's suffix names (``.svg``, ``.png``). Raises OSError."""
    tables = [table for topic in found for table in topic.tables]
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = -(-len(tables) // COLUMNS)
    # Text stays text in an SVG, and the same tables give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "treestore", "font.family": "sans-serif", "font.size": 8}):
        figure = Figure(figsize=(14, 4.4 * lines), facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        panels = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
        for panel, table in zip(panels, tables, strict=False):
            if len(table.axis) > 1:
                _lines(panel, table)
            else:
                _bars(panel, table)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_title(table.title, loc="left", fontsize=10, fontweight="bold")
        for panel in panels[len(tables) :]:
            panel.set_axis_off()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _lines(panel: Axes, table: Table) -> None:
    """A line for each row, over the sizes; a dashed one for each limit in the last column."""
    in_memory = table.columns[1].unit == "memory"
    unit, factor = ("MB", 2**-20) if in_memory else ("seconds", 1.0)
    limits: set[float] = set()
    for number, row in enumerate(one for one in table.rows if one[1] is not None):
        values = [value for value in row[1 : 1 + len(table.axis)] if isinstance(value, float | int)]
        if len(values) < len(table.axis):
            continue
        called = str(row[0]).strip()
        colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number // len(COLOURS)]
        panel.plot(table.axis, [value * factor for value in values], mark, ls="-", ms=4, color=colour, label=called)
        if in_memory and isinstance(row[-1], float | int):
            limits.add(row[-1] * factor)
    for limit in sorted(limits):
        panel.axhline(limit, color="#777777", linewidth=0.8, linestyle="--")
        where = (table.axis[0], limit)
        panel.annotate(f"cache {limit:.0f} MB", where, textcoords="offset points", xytext=(0, 3), color="#555555")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(table.axis_is)
    panel.set_ylabel(unit)
    panel.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bars(panel: Axes, table: Table) -> None:
    """A group of bars for each row, one for each column of times."""
    timed = [i for i, column in enumerate(table.columns) if column.unit == "seconds" and any(row[i] for row in table.rows)]
    thick = 0.8 / max(len(timed), 1)
    for place, row in enumerate(table.rows):
        for number, column in enumerate(timed):
            seconds = row[column]
            if isinstance(seconds, float) and seconds:
                at = place + number * thick
                label = table.columns[column].heading.lower() if place == 0 else None
                panel.barh(at, seconds, height=thick * 0.9, color=COLOURS[number], label=label)
                panel.annotate(
                    time_text(seconds), (seconds, at), textcoords="offset points", xytext=(3, 0), va="center", fontsize=6
                )
    panel.set_yticks([place + 0.4 - thick / 2 for place in range(len(table.rows))], [str(row[0]) for row in table.rows])
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("seconds")
    panel.margins(x=0.12)
    panel.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
