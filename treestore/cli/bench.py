"""The verb that measures treestore beside other stores, on the user's own machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from treestore.cli.options import Json, refuse
from treestore.cli.output import say, write, write_json, write_styled, write_table
from treestore.trees.rules import MAX_NODES

NODES = 5_000
ROUNDS = 3


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verb."""
    app.command()(bench)


def bench(
    nodes: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_NODES, help="Nodes of the document.")] = NODES,
    rounds: Annotated[int, typer.Option(metavar="R", min=1, max=100, help="Times that each is measured, in turn.")] = ROUNDS,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the stores are to lie. Without it: a temporary folder.", show_default=False),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A PostgreSQL server to measure too, where the user may make databases; they are dropped at the end.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure treestore beside other stores.

    SQLite takes part, LMDB where Python's lmdb is installed, and PostgreSQL where a server is named. All get the same
    document and the same questions; their answers are checked. It takes about half a minute and leaves nothing behind.
    Above 1x treestore is the faster one.
    """
    import sqlite3

    from treestore.bench import contenders, report
    from treestore.bench.run import Mismatch
    from treestore.bench.session import bench as measure

    if missing := contenders.left_out():
        say(missing)
    try:
        found = measure(nodes, rounds, folder, postgres, say=say if sys.stderr.isatty() else lambda _: None)
    except (Mismatch, sqlite3.Error) as failure:
        refuse(str(failure), status=1)
    if as_json:
        write_json(report.as_data(found))
        return
    for table in report.short_tables(found):
        write_table(*table)
        write("\n")
    write_styled([[(line, "")] for line in (*report.explained(found), report.made_of(found))], hanging=0)
