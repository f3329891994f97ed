#!/usr/bin/env python3
"""Has treestore become slower? The main rows of the benchmark against SQLite and LMDB, each with the least that it must reach.

    scripts/benchmark_guard.py [--nodes N] [--rounds R] [--folder DIR]

What is compared are ratios within one run, never times, and a bound is about half of what a quiet machine gives, so that it
is passed by a thing that has become twice as slow and by no noise. A row that falls short is measured once more by itself.
Prints a line for each row, and ends with status 1 if one falls short, with 2 for a wrong argument. Makes the environment that
scripts/test uses, or finds it made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

try:
    import lmdb  # noqa: F401 - one of the two that treestore is compared with

    from treestore.bench import corpus, report
    from treestore.bench.cases import ASYNC, CASES, LMDB, SQLITE, TREESTORE
    from treestore.bench.contenders import available
    from treestore.bench.run import Run, run
    from treestore.bench.session import check_count
    from treestore.errors import InvalidInput
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing

LEAST = {
    "store": (TREESTORE, SQLITE, 0.27),
    "store searchable": (TREESTORE, SQLITE, 0.17),
    "store equal": (TREESTORE, SQLITE, 0.17),
    "amend": (TREESTORE, SQLITE, 0.07),
    "small": (TREESTORE, SQLITE, 0.35),
    "together": (ASYNC, SQLITE, 0.15),
    "node": (TREESTORE, SQLITE, 0.8),
    "node, first": (TREESTORE, SQLITE, 0.17),
    "node, outline": (TREESTORE, LMDB, 0.33),
    "children": (TREESTORE, SQLITE, 1.2),
    "subtree": (TREESTORE, SQLITE, 2.5),
    "subtree, first": (TREESTORE, SQLITE, 0.3),
    "subtree, outline": (TREESTORE, SQLITE, 2.5),
    "whole": (TREESTORE, SQLITE, 3.0),
    "ancestors": (TREESTORE, SQLITE, 0.7),
    "as of": (TREESTORE, SQLITE, 0.7),
    "page": (TREESTORE, SQLITE, 0.3),
    "search, 2 words: rare + rare": (TREESTORE, SQLITE, 0.35),
    "search, 2 words: rare + common": (TREESTORE, SQLITE, 3.0),
}
"""For each case by its name: the face of treestore, who it is compared with, and how many times as fast it must be."""

NODES, ROUNDS = 10_000, 3


def measured(nodes: int, rounds: int, folder: Path | None, names: Sequence[str]) -> Run:
    """The rows of these names, measured side by side."""
    cases = [case for case in CASES if case.name in names]
    kinds = [kind for kind in available(server=False) if kind.name in (TREESTORE, ASYNC, SQLITE, LMDB)]
    with tempfile.TemporaryDirectory(prefix="treestore-guard-", dir=folder) as place:
        return run(corpus.make(nodes), kinds, Path(place), rounds, cases=cases)


def speeds(found: Run) -> dict[str, float]:
    """How many times as fast treestore is, by the names of the cases."""
    times = {measured.case.name: measured.times for measured in found.measured}
    return {name: by[LEAST[name][1]].median / by[LEAST[name][0]].median for name, by in times.items()}


def main(given: Sequence[str]) -> int:
    """Measure, print, and say whether all rows are within their bounds."""
    parser = argparse.ArgumentParser(description="The main rows of the benchmark against their bounds: ratios, never times.")
    parser.add_argument("--nodes", type=int, default=NODES, metavar="N", help=f"nodes of the document ({NODES})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="R", help=f"times that each is measured ({ROUNDS})")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the stores are to lie (a temporary folder)")
    asked = parser.parse_args(given)
    try:
        check_count(asked.nodes, 1_000_000, "nodes")
        check_count(asked.rounds, 100, "rounds")
    except InvalidInput as wrong:
        parser.error(str(wrong))
    reached = speeds(measured(asked.nodes, asked.rounds, asked.folder, list(LEAST)))
    if again := [name for name, times in reached.items() if times < LEAST[name][2]]:
        reached |= speeds(measured(asked.nodes, asked.rounds, asked.folder, again))
    short = 0
    for name, times in reached.items():
        _, other, least = LEAST[name]
        short += times < least
        said = "falls short" if times < least else "well"
        print(f"{said:<12} {name:<32} {report.speed_text(times):>6} {other}, at least {least:g}x")
    print(f"{len(reached) - short} of {len(reached)} rows are within their bounds")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
