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
from treestore.bench.cases import ASYNC, LIMIT, LMDB, ON_POSTGRES, POSTGRES, SQLITE, TREESTORE, Bound
from treestore.bench.run import Measured, Run, Times


class Judged(msgspec.Struct, frozen=True):
    """An aim and how it came out. ``reached`` is in the aim's own measure: times as fast, or seconds. ``met`` is None where
    the aim is set for a document of another size, of ``nodes`` nodes."""

    aim: str
    measure: Literal["times", "seconds"]
    reached: float
    met: bool | None
    nodes: int | None

    def __str__(self) -> str:
        reached = speed_text(self.reached) if self.measure == "times" else time_text(self.reached)
        if self.met is None:
            return f"{self.aim} at {self.nodes:,} nodes (here {reached})"
        return f"{self.aim}: {'met' if self.met else 'missed'} ({reached})"


def judged(run: Run, measured: Measured) -> list[Judged]:
    """The aims of a case that can be judged by this run: where both sides were measured."""
    found = []
    for bound in measured.case.bounds:
        own, other = measured.times.get(bound.of), _other(run, measured, bound)
        if own is None or (bound.seconds is None and other is None):
            continue
        if bound.seconds is not None or other is None:
            measure: Literal["times", "seconds"] = "seconds"
            reached, met = own.median, own.median <= (bound.seconds or 0.0)
        else:
            measure, reached = "times", other.median / own.median
            met = reached >= bound.times
        judging = bound.nodes in (None, run.nodes)
        found.append(Judged(str(bound), measure, reached, met if judging else None, bound.nodes))
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
    """Headings and rows: what was measured, how many times as fast as SQLite (and as PostgreSQL, if it took part) treestore
    is, and for each contender the median of the rounds and half the distance of their quartiles. ``aims`` adds what treestore
    aims at, and how it came out."""
    beside = _beside(run)
    ratios = [_heading(other).upper() for other in beside]
    headings = ["WHAT", *ratios, *(name.upper() for name in run.contenders), *(["AIM"] if aims else [])]
    rows: list[Sequence[str]] = []
    for measured in run.measured:
        row = [measured.case.what, *(_ratio(measured, other) for other in beside)]
        row += [_cell(measured.times.get(name)) for name in run.contenders]
        if aims:
            row.append("; ".join(map(str, judged(run, measured))) or "-")
        rows.append(row)
    return headings, rows


def short_tables(run: Run) -> list[tuple[Sequence[str], list[Sequence[str]]]]:
    """As :func:`table`, for 80 columns: medians alone, without the contenders that are there for few rows, and a table of its
    own for what PostgreSQL was asked."""
    tables = [_short_table(run, (SQLITE, LMDB))]
    if POSTGRES in run.contenders:
        asked = [measured for measured in run.measured if POSTGRES in measured.times]
        tables.append(_short_table(msgspec.structs.replace(run, measured=tuple(asked)), (POSTGRES,)))
    return tables


def _short_table(run: Run, others: Sequence[str]) -> tuple[Sequence[str], list[Sequence[str]]]:
    shown = [name for name in run.contenders if name in (TREESTORE, *others)]
    rows: list[Sequence[str]] = []
    for measured in run.measured:
        times = (measured.times.get(name) for name in shown)
        medians = ("-" if one is None else time_text(one.median) for one in times)
        rows.append([measured.case.what, _ratio(measured, others[0]), *medians])
    return ["WHAT", _heading(others[0]).upper(), *(name.upper() for name in shown)], rows


def markdown(run: Run) -> str:
    """The table with the aims, in Markdown."""
    _, rows = table(run, aims=True)
    names = ("", *map(_heading, _beside(run)), *run.contenders, "aim")
    lines = [names, ["---", *["---:"] * (len(names) - 2), "---"], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def aims(run: Run) -> list[str]:
    """How each aim came out, one line each, and how many were met of those that could be judged."""
    found = [(measured.case.what, one) for measured in run.measured for one in judged(run, measured)]
    width = max((len(what) for what, _ in found), default=0)
    judging = [one for _, one in found if one.met is not None]
    others = f", {len(found) - len(judging)} are set for other documents" if len(judging) < len(found) else ""
    lines = [f"{what.ljust(width)}  {one}" for what, one in found]
    return [*lines, f"{sum(one.met is True for one in judging)} of {len(judging)} aims met{others}"]


def explained(run: Run) -> list[str]:
    """What the ratios in the table are."""
    sqlite = "how many times as fast as SQLite treestore is, called / awaited (its synchronous face, and its asynchronous one)"
    lines = [f"{_heading(SQLITE).upper()}: {sqlite}. Above 1x treestore is faster."]
    if POSTGRES in run.contenders:
        plain = "how many times as fast as plain SQL on PostgreSQL treestore is, on its native store / on PostgreSQL too"
        lines.append(f"{_heading(POSTGRES).upper()}: {plain}.")
    if LIMIT in run.contenders:
        allowed = "one write and one sync of the same bytes, or the same records decoded from a list, without a look-up"
        lines.append(f"{_heading(LIMIT).upper()}: beside what the machine allows: {allowed}. Kept records can be faster.")
    return lines


def made_of(run: Run) -> str:
    """What the run was made of."""
    with_versions = ", ".join(f"{name} {number}" for name, number in versions(run).items())
    return f"{sizes(run)}; {with_versions}"


def sizes(run: Run) -> str:
    """How much was measured, and how often."""
    rounds = f"medians of {run.rounds} rounds" if run.rounds > 1 else "1 round"
    return f"{run.nodes:,} node{'' if run.nodes == 1 else 's'}, {rounds}"


_OWN = (TREESTORE, ASYNC, ON_POSTGRES)
_FACES = {SQLITE: (TREESTORE, ASYNC), POSTGRES: (TREESTORE, ON_POSTGRES), LIMIT: (TREESTORE,)}
"""Which of treestore's contenders are set beside another store in a table."""


def _beside(run: Run) -> list[str]:
    return [SQLITE, *(other for other in (POSTGRES, LIMIT) if other in run.contenders)]


def _heading(other: str) -> str:
    return f"vs {other}"


def _ratio(measured: Measured, other: str) -> str:
    return " / ".join(map(speed_text, _as_fast(measured, other, _FACES[other]).values())) or "-"


def _as_fast(measured: Measured, as_whom: str, faces: Sequence[str] = _OWN) -> dict[str, float]:
    """How many times as fast as another store treestore's contenders are."""
    other = measured.times.get(as_whom)
    own = {name: measured.times[name].median for name in faces if name in measured.times}
    return {} if other is None else {name: other.median / seconds for name, seconds in own.items()}


# --- as data -------------------------------------------------------------------------------------------------------------


def versions(run: Run) -> dict[str, str]:
    """The versions of all that took part, by name."""
    found = {
        "treestore": treestore.__version__,
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "msgspec": msgspec.__version__,
    }
    with suppress(PackageNotFoundError):
        found["lmdb"] = version("lmdb")
    if run.postgres is not None:
        found |= {"PostgreSQL": run.postgres, "asyncpg": version("asyncpg")}
    return found


def as_data(run: Run) -> dict[str, Any]:
    """All that was measured, in seconds, with what it was measured on."""
    return {
        "nodes": run.nodes,
        "rounds": run.rounds,
        "versions": versions(run),
        "machine": {"system": sys.platform, "kind": platform.machine(), "processors": os.cpu_count()},
        "cases": [
            {
                "name": measured.case.name,
                "what": measured.case.what,
                "seconds": {name: {"median": t.median, "rounds": list(t.rounds)} for name, t in measured.times.items()},
                "times_as_fast": {
                    other: _as_fast(measured, other) for other in measured.times if other not in _OWN
                },
                "aims": [
                    {"aim": one.aim, "nodes": one.nodes, one.measure: one.reached, "met": one.met}
                    for one in judged(run, measured)
                ],
            }
            for measured in run.measured
        ],
    }
