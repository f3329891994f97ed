"""The arguments and options that verbs share, and the opening of the store that they name."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from treestore.cli.output import say

if TYPE_CHECKING:
    from treestore.store import SyncTreeStore

ADVICE = "treestore.search.query"
"""The logger that says, when a store is opened, that it is to be reindexed."""

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        # The address with a hyphen comes first: further on in the text it would be broken there in a terminal.
        help="Default: TREESTORE_URL, else btree:///treestore-data. Others: btree:///relative/folder, "
        "btree:////absolute/folder, postgresql://user@host/database, memory://.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print records as JSON, alone on stdout.")]
Policy = Annotated[str, typer.Argument(metavar="POLICY", help="Id of the policy.", show_default=False)]
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="Id of the node.", show_default=False)]
OptionalNodeId = Annotated[
    str | None, typer.Argument(metavar="[NODE]", help="Id of the node; without it the roots are meant.", show_default=False)
]
VersionId = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="ID",
        help="The version. Without it: the one in effect now, or the latest where none is yet.",
        show_default=False,
    ),
]


def parse_date(text: str) -> date:
    """A date, or a date and a time (UTC unless it says otherwise), in ISO 8601."""
    for kind in (date, datetime):
        try:
            return kind.fromisoformat(text)
        except ValueError:
            continue
    raise typer.BadParameter(f"{text[:60]!r} is no ISO date (2026-11-20) or time (2026-11-20T08:00:00Z)")


@contextmanager
def opened(context: typer.Context, store: str | None) -> Generator[SyncTreeStore]:
    """The store that the options name, open; it is not made."""
    import treestore

    with treestore.open_sync(store_url(context, store), create=False) as target:
        yield target


def store_url(context: typer.Context, store: str | None) -> str | None:
    """The URL given after the verb, else the one given before it, else None."""
    before: str | None = context.obj
    return before if store is None else store


def refuse(message: str, *, status: int) -> NoReturn:
    """End the command with one line and this status."""
    say(message)
    raise typer.Exit(status)
