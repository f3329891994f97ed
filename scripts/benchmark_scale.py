#!/usr/bin/env python3
"""The native store as it grows: look-ups, commits and openings by its size, memory, pauses, recovery, cold starts.

Prints a table for each topic. Ends with status 1 if an answer is wrong or something fails, with 2 for a wrong argument. Each
measurement has a process of its own. Run by a Python that treestore is not installed for, it makes the environment that
scripts/test uses, or finds it made, and goes on there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from treestore.bench.scale import picture
    from treestore.bench.scale.topics import TOPICS, Sizes, measured
    from treestore.bench.tables import as_data, markdown
    from treestore.cli.benchmarks import Asked, Parser, run, say, show, write_outputs
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing


NAME = "benchmark_scale"


def arguments(given: Sequence[str]) -> Asked:
    """What was asked for, outputs checked."""
    parser, usual = Parser(NAME, "The native store as it grows."), Sizes()
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=TOPICS, metavar="TOPIC", help=f"some of {TOPICS}")
    for field, what, metavar in (
        ("nodes", "nodes of the stores of growth and memory, the smallest first", "N"),
        ("caches", "sizes of the cache for memory", "MB"),
        ("logs", "lengths of the log for recovery", "MB"),
    ):
        parser.add_argument(f"--{field}", nargs="+", type=int, default=getattr(usual, field), metavar=metavar, help=what)
    parser.add_argument("--document", type=int, default=usual.document, metavar="N", help="nodes for pauses and cold starts")
    parser.add_argument(
        "--checkpoint-mb", type=int, default=usual.checkpoint_mb, metavar="MB", help="log that makes a checkpoint due (pauses)"
    )
    parser.add_argument("--rounds", type=int, default=usual.rounds, metavar="R", help="openings and cold starts of each kind")
    parser.add_argument("--seconds", type=float, default=usual.seconds, metavar="S", help="of reading for memory")
    parser.add_argument(
        "--drop-caches", action="store_true", help="drop all that the system keeps in memory, before cold starts (as root)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the stores are to lie (a temporary folder)")
    return parser.parse_with_outputs(given)


def main(given: Sequence[str]) -> None:
    """Measure, print, and write what was asked for."""
    asked = arguments(given)
    fields = {name: getattr(asked, name) for name in Sizes.__struct_fields__}
    found = measured(Sizes(**fields), asked.topics, asked.folder, say)
    show(found)
    write_outputs(asked, as_data(found), markdown(found), lambda path: picture.draw(found, path))


if __name__ == "__main__":
    run(NAME, main)
