#!/usr/bin/env python3
"""treestore's writers beside SQLite and the bare disk: rates, latencies, bytes, and what readers leave of them, in one run.

Prints tables. Ends with status 1 if a store has not what it was given, with 2 for a wrong argument. Run by a Python that
treestore is not installed for, it makes the environment that scripts/test uses, or finds it made, and goes on there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from treestore.bench.tables import as_data, markdown
    from treestore.bench.writes import pictures
    from treestore.bench.writes.run import TOPICS, Sizes, run
    from treestore.cli import benchmarks
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing

NAME = "benchmark_writes"


def counts(given: str) -> tuple[int, ...]:
    """Whole numbers."""
    return tuple(int(part) for part in given.split(","))


def milliseconds(given: str) -> tuple[float, ...]:
    """Seconds, given in thousandths."""
    return tuple(float(part) / 1000 for part in given.split(","))


def arguments(given: Sequence[str]) -> benchmarks.Asked:
    """What was asked for, outputs checked."""
    usual = Sizes()
    parser = benchmarks.Parser(NAME, "treestore's writers beside SQLite and the bare disk, in one run.")
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"what to measure: {', '.join(TOPICS)} (all)")
    parser.add_argument("--groups", type=int, default=usual.groups, metavar="N", help=f"of each kind ({usual.groups})")
    parser.add_argument("--rounds", type=int, default=usual.rounds, metavar="R", help=f"in turn ({usual.rounds})")
    parser.add_argument("--nodes", type=int, default=usual.nodes, metavar="N", help=f"of the whole tree ({usual.nodes})")
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, metavar="S", help=f"for each pace beside readers ({usual.seconds:g})"
    )
    parser.add_argument("--callers", type=counts, default=usual.callers, metavar="N,N", help="how many at once (1,8,64)")
    parser.add_argument("--writers", type=counts, default=usual.writers, metavar="N,N", help="beside readers (1,64)")
    parser.add_argument("--syncs", type=milliseconds, default=usual.syncs, metavar="MS,MS", help="of disks (0,2,10)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the stores are to lie (a temporary folder)")
    asked = parser.parse_with_outputs(given)
    for topic in asked.topics:
        if topic not in TOPICS:
            parser.error(f"no topic {topic!r}; there are {', '.join(TOPICS)}")
    return asked


def main(given: Sequence[str]) -> None:
    """Measure, print, and write what was asked for."""
    asked = arguments(given)
    sizes = Sizes(asked.groups, asked.rounds, asked.callers, asked.nodes, asked.seconds, asked.writers, asked.syncs)
    found = run(sizes, asked.folder, asked.topics or TOPICS, benchmarks.say)
    benchmarks.show(found)
    benchmarks.write_outputs(asked, as_data(found), markdown(found), lambda path: pictures.draw(found, path))


if __name__ == "__main__":
    benchmarks.run(NAME, main)
