"""The verbs on stores that are not open: a backup that is restored, a damaged store of which the rest is saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treestore.cli.options import Json, refuse
from treestore.cli.output import counted, printable, write, write_json

if TYPE_CHECKING:
    from treestore.records import LostVersion

NewFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    for verb in (restore, salvage):
        app.command()(verb)


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="The folder of a backup.", show_default=False)],
    folder: NewFolder,
    as_json: Json = False,
) -> None:
    """Copy a backup to a new folder.

    All of it is checked before the copy counts. The backup is only read.
    """
    import treestore

    size = treestore.restore(backup, folder)
    if as_json:
        write_json({"folder": str(folder), "size_bytes": size})
    else:
        write(f"restored {size} bytes to {printable(str(folder))}\n")


def salvage(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder of the damaged store.", show_default=False)],
    folder: NewFolder,
    parts: Annotated[
        Path | None,
        typer.Option("--parts", metavar="FOLDER", help="For what is not whole. Default: DIR.parts.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Save what is left of a damaged store.

    What is whole is copied to a new store, what is not is listed. The damaged store is only read. The status is 1 if anything
    was lost.
    """
    import treestore

    report = treestore.salvage(source, folder, parts)
    if as_json:
        write_json(report)
    else:
        said = [f"damaged: {line}" for line in report.damage] + list(map(_said_of, report.lost))
        for policy, version in report.outdated:
            said.append(f"outdated: policy {policy!r} version {version!r}: its last changes may be missing")
        said.append(f"copied {counted(report.versions, 'versions')}, {counted(report.nodes, 'nodes')} to {folder}")
        write("".join(f"{printable(line)}\n" for line in said))
    if not report.complete:
        refuse("something was lost" if report.lost or report.outdated else "something may be lost", status=1)


def _said_of(lost: LostVersion) -> str:
    """One line about a version that is not whole."""
    nodes = f"{lost.nodes_read} of {'?' if lost.nodes is None else counted(lost.nodes, 'nodes')}"
    pages = f", {lost.pages_read} of {counted(lost.pages, 'page texts')}" if lost.pages else ""
    texts = f", {counted(lost.texts_lost, 'texts')} lost" if lost.texts_lost else ""
    facts = "" if lost.facts else ", its facts lost"
    kept = "" if lost.file is None else f"; what can be read is in {lost.file}"
    why = f" ({'; '.join(lost.where)})" if lost.where else ""
    return f"lost: policy {lost.policy_id!r} version {lost.version_id!r}: {nodes}{pages}{texts}{facts}{kept}{why}"
