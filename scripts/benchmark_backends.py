#!/usr/bin/env python3
"""treestore beside SQLite, LMDB and PostgreSQL: the same document, the same questions, one run (see docs/performance.md).

Prints a table. Ends with status 1 if a store gives a wrong answer or fails, with 2 for a wrong argument. Run by a Python that
treestore is not installed for, it makes the environment that scripts/test uses, or finds it made, and goes on there. In any
other, ``pip install -e '.[dev]'`` installs what --plot (matplotlib) and LMDB's column (lmdb) need; without them the rest is
measured. PostgreSQL is a server of this run's own, started as the tests start theirs (durable, on the loopback interface), or
the one that --postgres names.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    from treestore.bench import contenders, plot, report
    from treestore.bench.session import bench
    from treestore.cli.benchmarks import Asked, Parser, run, say, write_outputs
    from treestore.cli.output import write, write_styled, write_table
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing


NAME = "benchmark_backends"

SHARED_BUFFERS = "1GB"
"""For the stores of a run that lie there at once, as much cache together as each other store has for itself."""


def arguments(given: Sequence[str]) -> Asked:
    """What was asked for, outputs checked."""
    parser = Parser(NAME, "treestore beside SQLite, LMDB and PostgreSQL: one document, the same questions, one run.")
    parser.add_argument("--nodes", type=int, default=50_000, metavar="N", help="nodes of the document (50000)")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="times that each is measured, in turn (5)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the stores are to lie (a temporary folder)")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        help="a PostgreSQL server to measure too, where the user may make databases; they are dropped at the end; or 'none' "
        "(a server of its own, if PostgreSQL is installed)",
    )
    return parser.parse_with_outputs(given)


@contextmanager
def postgres(named: str | None) -> Iterator[str | None]:
    """The URL of the PostgreSQL server to measure: the one that is named, else one that lasts so long. None: there is none."""
    if named is not None:
        yield None if named == "none" else named
        return
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    try:
        from tests.postgres.binaries import NoPostgres
        from tests.postgres.server import Server
    except ImportError as missing:
        say(f"PostgreSQL is left out: {missing}")
        yield None
        return
    word = secrets.token_hex(16)  # the port is open to everybody on this machine
    try:
        started = Server(settings={"shared_buffers": SHARED_BUFFERS}, durable=True, password=word, tcp=True)
    except NoPostgres as missing:
        say(f"PostgreSQL is left out: {missing}")
        yield None
        return
    with started as server:
        yield f"postgresql://{server.user}:{word}@127.0.0.1:{server.port}/postgres?sslmode=disable"


def main(given: Sequence[str]) -> None:
    """Measure, print, and write what was asked for."""
    asked = arguments(given)
    if missing := contenders.left_out():
        say(missing)
    with postgres(asked.postgres) as server:
        found = bench(asked.nodes, asked.rounds, asked.folder, server, say=say)
    write_table(*report.table(found))
    write("\n")
    lines = [*report.explained(found), "", *report.aims(found), "", report.made_of(found)]
    write_styled([[(line, "")] for line in lines], hanging=0)
    write_outputs(asked, report.as_data(found), report.markdown(found), lambda path: plot.draw(found, path))


if __name__ == "__main__":
    run(NAME, main)
