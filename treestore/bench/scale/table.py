"""What was measured, as tables: numbers with their units, for a terminal of 80 columns, for Markdown, for a program."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

import treestore
from treestore.bench.report import speed_text, time_text

Unit = Literal["s", "B", "x", ""]
"""Seconds, bytes, times as much, a count."""


class Number(msgspec.Struct, frozen=True):
    """A number that was measured."""

    value: float
    unit: Unit = "s"

    def __str__(self) -> str:
        match self.unit:
            case "s":
                return time_text(self.value)
            case "x":
                return speed_text(self.value)
            case "B":
                return f"{self.value / 2**20:.0f} MB" if abs(self.value) >= 100 << 20 else f"{self.value / 2**20:.1f} MB"
        return f"{self.value:,.0f}"


Cell = Number | str | None


class Table(msgspec.Struct, frozen=True):
    """One topic. The first cell of a row says what was measured. ``axis`` are the sizes that the next columns are for, if they
    are for sizes, and ``axis_is`` what they count."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    axis: tuple[float, ...] = ()
    axis_is: str = ""


def texts(table: Table) -> list[list[str]]:
    """The rows as text."""
    return [["-" if cell is None else str(cell) for cell in row] for row in table.rows]


def markdown(tables: Sequence[Table]) -> str:
    """All tables, each under its title, with its notes."""
    lines = []
    for table in tables:
        rows = [table.headings, ["---", *["---:"] * (len(table.headings) - 1)], *texts(table)]
        lines += [f"### {table.title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
        lines += [f"- {note}" for note in table.notes] + ["" for _ in table.notes[:1]]
    return "\n".join(lines)


def as_data(tables: Sequence[Table]) -> dict[str, Any]:
    """All that was measured, and on what. Seconds, bytes and counts are plain numbers."""
    return {
        "versions": {"treestore": treestore.__version__, "Python": platform.python_version()},
        "machine": {"system": sys.platform, "kind": platform.machine(), "processors": os.cpu_count()},
        "tables": [
            {
                "title": table.title,
                "axis": table.axis,
                "axis_is": table.axis_is,
                "rows": [
                    {
                        heading: cell.value if isinstance(cell, Number) else cell
                        for heading, cell in zip(table.headings, row, strict=True)
                    }
                    for row in table.rows
                ],
                "notes": table.notes,
            }
            for table in tables
        ],
    }
