"""The verbs on a whole store: its counts, its soundness, its copies, its size."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from treestore.cli.options import ADVICE, Json, Store, opened, refuse
from treestore.cli.output import counted, printable, write, write_fields, write_json


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    for verb in (stats, check, backup, compact, reindex):
        app.command()(verb)


def stats(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Show counts over the whole store."""
    with opened(context, store) as target:
        found = target.stats()
    if as_json:
        write_json(found)
        return
    figures: dict[str, object] = {
        "documents": found.documents,
        "versions": found.versions,
        "nodes": found.nodes,
        "size bytes": found.size_bytes,
        **{name.replace("_", " "): value for name, value in found.backend.items()},
    }
    write_fields((name, str(value)) for name, value in figures.items())


def check(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Prove the whole store sound.

    Structure, indexes and hashes are checked. The status is 1 if it is not sound.
    """
    with opened(context, store) as target:
        report = target.check()
    if as_json:
        write_json(report)
    elif report.ok:
        write("sound: " + ", ".join(counted(count, name) for name, count in report.counts.items()) + "\n")
    else:
        write("".join(f"{printable(problem)}\n" for problem in report.problems))
    if not report.ok:
        refuse(f"the check found {counted(len(report.problems), 'problems')}", status=1)


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Copy the store to a new folder.

    The copy is of one committed moment, and a store itself.
    """
    with opened(context, store) as target:
        size = target.backup(folder)
    if as_json:
        write_json({"folder": str(folder), "size_bytes": size})
    else:
        write(f"copied {size} bytes to {printable(str(folder))}\n")


def compact(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Rewrite the store without its free space."""
    with opened(context, store) as target:
        freed = target.compact()
    if as_json:
        write_json({"freed_bytes": freed})
    else:
        write(f"gave back {freed} bytes\n")


def reindex(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Make documents searchable after an update.

    Needed when opening a store says so. Only what another version of the analyzer made is made anew.
    """
    with _unadvised(), opened(context, store) as target:
        count = target.documents.reindex()
    if as_json:
        write_json({"versions": count})
    else:
        write(f"reindexed {counted(count, 'versions')}\n")


@contextmanager
def _unadvised() -> Generator[None]:
    """Opening a store says that it is to be reindexed. Whoever is doing that need not be told."""
    log = logging.getLogger(ADVICE)

    def nothing(_: logging.LogRecord) -> bool:
        return False

    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)
