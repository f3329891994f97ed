"""The form of what measurements find: topics with tables, whose columns have units. As text, as Markdown, as plain data."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

import treestore
from treestore.bench.report import speed_text, time_text

Unit = Literal["text", "seconds", "rate", "bytes", "memory", "count", "share", "times"]
Value = str | float | None
"""None where there is nothing to be said."""


class Column(msgspec.Struct, frozen=True):
    """A heading, and the unit of what stands below it: a rate is per second, a share is of 1; memory is in bytes, and shown in
    megabytes of 2**20."""

    heading: str
    unit: Unit = "text"


class Table(msgspec.Struct, frozen=True):
    """Rows of values, one for each column. A text that is the same as in the row above is shown once. ``axis`` are the sizes
    that the columns after the first are for, if they are for sizes, and ``axis_is`` what they count."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    axis: tuple[float, ...] = ()
    axis_is: str = ""

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        shown = [[value_text(v, c.unit) for v, c in zip(row, self.columns, strict=True)] for row in self.rows]
        for number in range(len(shown) - 1, 0, -1):
            for place, column in enumerate(self.columns):
                if column.unit != "text" or shown[number][place] != shown[number - 1][place]:
                    break
                shown[number][place] = ""
        return shown


class Aim(msgspec.Struct, frozen=True):
    """Something that should be so, what was found, and whether it is so."""

    aim: str
    found: str
    met: bool

    def __str__(self) -> str:
        return f"{self.aim}: {'met' if self.met else 'missed'} ({self.found})"


class Topic(msgspec.Struct, frozen=True):
    """What was found about one matter. ``notes`` say what the columns are and how they were measured."""

    name: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    aims: tuple[Aim, ...] = ()


def value_text(value: Value, unit: Unit) -> str:
    """A value with its unit: "1,620" per second, "0.61 ms", "12 kB", "4.2 %", "1.85x"."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    match unit:
        case "seconds":
            return time_text(value)
        case "bytes":
            return _bytes_text(value)
        case "memory":
            return f"{value / 2**20:.0f} MB" if abs(value) >= 100 << 20 else f"{value / 2**20:.1f} MB"
        case "count":
            return f"{value:,.0f}"
        case "share":
            return f"{value * 100:.1f} %" if value < 0.0995 else f"{value * 100:.0f} %"
        case "times":
            return f"{value:.3f}x" if value < 0.0995 else speed_text(value)
        case _:
            return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}"


def _bytes_text(value: float) -> str:
    for below, factor, unit in ((1e3, 1, "B"), (1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        if value < below:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e9:.3g} GB"


def markdown(topics: Sequence[Topic]) -> str:
    """All tables, notes and aims in Markdown."""
    found: list[str] = []
    for topic in topics:
        found += [f"### {topic.name}", ""]
        for table in topic.tables:
            heads = [column.heading.lower() for column in table.columns]
            rules = ["---" if column.unit == "text" else "---:" for column in table.columns]
            found += [f"**{table.title}**", ""]
            found += [f"| {' | '.join(row)} |" for row in [heads, rules, *table.cells()]]
            found.append("")
        found += [f"- {note}" for note in [*topic.notes, *map(str, topic.aims)]]
        found.append("")
    return "\n".join(found)


def as_data(topics: Sequence[Topic]) -> dict[str, Any]:
    """All that was found, and on what: seconds, groups per second, bytes, and shares of 1."""
    return {
        "versions": {"treestore": treestore.__version__, "Python": platform.python_version()},
        "machine": {"system": sys.platform, "kind": platform.machine(), "processors": os.cpu_count()},
        "topics": [_topic_data(topic) for topic in topics],
    }


def _topic_data(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "tables": [
            {
                "title": table.title,
                "axis": table.axis,
                "axis_is": table.axis_is,
                "rows": [
                    {column.heading.lower(): value for column, value in zip(table.columns, row, strict=True)}
                    for row in table.rows
                ],
            }
            for table in topic.tables
        ],
        "notes": topic.notes,
        "aims": [msgspec.to_builtins(aim) for aim in topic.aims],
    }
