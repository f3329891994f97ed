"""The verbs on stores that are not open: a backup that is restored, a damaged store of which the rest is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treestore.cli.options import Json
from treestore.cli.output import printable, write, write_json

NewFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    for verb in (restore,):
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
