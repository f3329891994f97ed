"""A run as a table for a reader, as Markdown for the documentation, and as plain data for a program.

Compared with another store treestore is said to be so many times *as fast*: above 1 it is the faster one, on every row.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import msgspec

import treestore
from treestore.bench.cases import ASYNC, SQLITE, TREESTORE, Bound
from treestore.bench.run import Measured, Run, Times


class Judged(msgspec.Struct, frozen=True):
    """An aim and how it came out. ``reached`` is in the aim's own measure: times as fast, or seconds."""

    aim: str
    measure: Literal["times", "seconds"]
    reached: float
    met: bool

    def __str__(self) -> str:
        reached = speed_text(self.reached) if self.measure == "times" else time_text(self.reached)
        return f"{self.aim}: {'met' if self.met else 'missed'} ({reached})"


def judged(run: Run, measured: Measured) -> list[Judged]:
    """The aims of a case that can be judged by this run: where both sides were measured."""
    found = []
    for bound in measured.case.bounds:
        own, other = measured.times.get(bound.of), _other(run, measured, bound)
        if own is None:
            continue
        if bound.seconds is not None:
            found.append(Judged(str(bound), "seconds", own.median, own.median <= bound.seconds))
        elif other is not None:
            reached = other.median / own.median
            found.append(Judged(str(bound), "times", reached, reached >= bound.times))
    return found


def _other(run: Run, measured: Measured, bound: Bound) -> Times | None:
    """The times that a bound compares with."""
    for other in run.measured:
        if other.case.name == (bound.case or measured.case.name):
            return other.times.get(bound.than)
    return None


# --- as text -------------------------------------------------------------------------------------------------------------

_UNITS = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"))


def time_text(seconds: float) -> str:
    """A time with three digits: "8.21 µs", "332 ms"."""
    factor, unit = next(((factor, unit) for below, factor, unit in _UNITS if seconds < below), (1.0, "s"))
    return f"{_three_digits(seconds * factor)} {unit}"


def speed_text(times: float) -> str:
    """How many times as fast: "1.85x"."""
    return f"{_three_digits(times)}x"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _cell(times: Times | None) -> str:
    if times is None:
        return "-"
    low, high = times.quartiles
    return time_text(times.median) + (f" ±{(high - low) / 2 / times.median * 100:.0f}%" if len(times.rounds) > 1 else "")


def table(run: Run, *, aims: bool = False) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Headings and rows: what was measured, for each contender the median of the rounds and half the distance of their
    quartiles, and how many times as fast as SQLite both faces of treestore are. ``aims`` adds what treestore aims at, and how
    it came out."""
    headings = ["WHAT", *(name.upper() for name in run.contenders), f"VS {SQLITE.upper()}", *(["AIM"] if aims else [])]
    rows: list[Sequence[str]] = []
    for measured in run.measured:
        row = [measured.case.what, *(_cell(measured.times.get(name)) for name in run.contenders)]
        row.append(" / ".join(map(speed_text, _as_fast(measured, SQLITE).values())) or "-")
        if aims:
            row.append("; ".join(map(str, judged(run, measured))) or "-")
        rows.append(row)
    return headings, rows


def markdown(run: Run) -> str:
    """The table with the aims, in Markdown."""
    headings, rows = table(run, aims=True)
    names = ("", *run.contenders, f"vs {SQLITE}", "aim")
    lines = [names, ["---", *["---:"] * (len(headings) - 2), "---"], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def met(run: Run) -> str:
    """How many of the aims that could be judged were met."""
    found = [one for measured in run.measured for one in judged(run, measured)]
    return f"{sum(one.met for one in found)} of {len(found)} aims met"


def made_of(run: Run) -> str:
    """What the run was made of."""
    with_versions = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{_counted(run.nodes, 'node')}, medians of {_counted(run.rounds, 'round')}; {with_versions}"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _as_fast(measured: Measured, as_whom: str) -> dict[str, float]:
    """How many times as fast as another store the faces of treestore are."""
    other = measured.times.get(as_whom)
    own = {name: measured.times[name].median for name in (TREESTORE, ASYNC) if name in measured.times}
    return {} if other is None else {name: other.median / seconds for name, seconds in own.items()}


# --- as data -------------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """The versions of all that took part, by name."""
    found = {
        "treestore": treestore.__version__,
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "msgspec": msgspec.__version__,
    }
    with suppress(PackageNotFoundError):
        found["lmdb"] = version("lmdb")
    return found


def as_data(run: Run) -> dict[str, Any]:
    """All that was measured, in seconds, with what it was measured on."""
    return {
        "nodes": run.nodes,
        "rounds": run.rounds,
        "versions": versions(),
        "machine": {"system": sys.platform, "kind": platform.machine(), "processors": os.cpu_count()},
        "cases": [
            {
                "name": measured.case.name,
                "what": measured.case.what,
                "seconds": {name: {"median": t.median, "rounds": list(t.rounds)} for name, t in measured.times.items()},
                "times_as_fast": {
                    other: _as_fast(measured, other) for other in measured.times if other not in (TREESTORE, ASYNC)
                },
                "aims": [
                    {"aim": one.aim, one.measure: one.reached, "met": one.met} for one in judged(run, measured)
                ],
            }
            for measured in run.measured
        ],
    }
