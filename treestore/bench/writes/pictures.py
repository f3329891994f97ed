"""What was found as a picture: rates by the number of callers, shares of the time, bytes, what writers keep beside readers.

Needs matplotlib, which is no dependency of treestore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from treestore.bench.cases import SQLITE, TREESTORE
from treestore.bench.contenders.disk import DISK
from treestore.bench.plot import COLOURS
from treestore.bench.tables import Table, Topic, Value, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
_STYLES = {SQLITE: ":", DISK: "--"}
_SHADES = (
    "#0072b2", "#56b4e9", "#009e73", "#f0e442", "#e69f00", "#d55e00", "#cc79a7", "#332288", "#882255", "#999999", "#dddddd",
)  # fmt: skip

Panel = Callable[["Axes"], None]


def draw(found: Sequence[Topic], path: Path) -> None:
    """Write the picture, in the format that the file's suffix names (``.svg``, ``.png``). Raises OSError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = [panel for topic in found for panel in _panels(topic)]
    rows = -(-len(panels) // COLUMNS)
    # Text stays text in an SVG, and the same run gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "treestore", "font.family": "sans-serif", "font.size": 8}):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(16, 3.3 * rows + 0.5), facecolor="white", layout=layout)
        places = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for place, panel in zip(places, panels, strict=False):
            panel(place)
            place.spines[["top", "right"]].set_visible(False)
        for place in places[len(panels) :]:
            place.set_axis_off()
        figure.suptitle("treestore's writers beside SQLite and the disk alone", fontsize=12, fontweight="bold")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


_BARS = {
    "PER BYTE": ({"PER BYTE": TREESTORE, "SQLITE": SQLITE}, "bytes for each byte"),
    "CHANGED": ({"LOG": "log", "PAGES": "pages"}, "of the first version's bytes"),
    "KEPT": ({"KEPT": "kept", "TURN": "must be kept"}, "of the rate without readers"),
}
"""Tables with this column are drawn as bars: of which columns, as whose, and what they measure."""


def _panels(topic: Topic) -> list[Panel]:
    found: list[Panel] = []
    for table in topic.tables:
        headings = {column.heading for column in table.columns}
        if "CALLERS" in headings:
            found.append(partial(_rates, table=table))
        elif "STAGE" in headings:
            found.append(partial(_stages, table=table))
        for heading in headings & _BARS.keys():
            shown, of = _BARS[heading]
            found.append(partial(_bars, table=table, shown=shown, of=of))
    return found


def _column(table: Table, heading: str) -> list[Value]:
    place = [column.heading for column in table.columns].index(heading)
    return [row[place] for row in table.rows]


def _numbers(table: Table, heading: str) -> list[float]:
    return [value for value in _column(table, heading) if isinstance(value, float | int)]


def _rates(axes: Axes, table: Table) -> None:
    """A line for each writer and one for the disk alone, over the number of callers, both in powers."""
    callers, names = [str(value) for value in _column(table, "CALLERS")], _column(table, "WRITER")
    rates, disk = _numbers(table, "GROUPS/S"), dict(zip(callers, _numbers(table, "DISK/S"), strict=True))
    lines = {str(name): {callers[i]: rates[i] for i in range(len(rates)) if names[i] == name} for name in names}
    for name, line in [*lines.items(), (DISK, disk)]:
        places, style = [int(count) for count in line], _STYLES.get(name, "-")
        colour = COLOURS.get(name, COLOURS[SQLITE])
        axes.plot(places, list(line.values()), style, marker="o", markersize=3, color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([int(c) for c in disk], list(disk))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
    axes.yaxis.set_minor_formatter(lambda rate, _: "")
    axes.set_xlabel("callers at once")
    axes.set_ylabel("groups per second")
    axes.legend(frameon=False, fontsize=7)
    axes.set_title(table.title, loc="left", fontsize=8, fontweight="bold")


def _stages(axes: Axes, table: Table) -> None:
    """Two bars, plain and searchable, made of the stages."""
    names = [str(name) for name in _column(table, "STAGE")]
    names = names[: names.index("all")]
    for place, heading in enumerate(("SHARE", "ITS SHARE")):
        left = 0.0
        for number, (name, share) in enumerate(zip(names, _numbers(table, heading), strict=False)):
            axes.barh(place, share, left=left, color=_SHADES[number % len(_SHADES)], label=None if place else name)
            if share > 0.04:
                axes.text(left + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=7)
            left += share
    axes.set_yticks([0, 1], ["plain", "searchable"])
    axes.set_ylim(1.5, -2.2)
    axes.set_xticks([])
    axes.spines["left"].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=3, loc="upper center")
    axes.set_title(table.title, loc="left", fontsize=8, fontweight="bold")


def _bars(axes: Axes, table: Table, shown: dict[str, str], of: str) -> None:
    """For each row a bar for each of two columns, with its value beside it; ``of`` says what they are."""
    texts = [i for i, column in enumerate(table.columns) if column.unit == "text"]
    units = {column.heading: column.unit for column in table.columns}
    labels = [", ".join(str(row[i]) for i in texts) for row in table.rows]
    for number, (heading, name) in enumerate(shown.items()):
        values = _numbers(table, heading)
        places = [row + (number - 0.5) * 0.4 for row in range(len(values))]
        axes.barh(places, values, height=0.36, label=name, color=COLOURS[TREESTORE] if not number else COLOURS[SQLITE])
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f" {value_text(value, units[heading])}", va="center", fontsize=7)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlabel(of)
    axes.margins(x=0.15)
    axes.legend(frameon=False, fontsize=7)
    axes.set_title(table.title, loc="left", fontsize=8, fontweight="bold")
