"""The ``treestore`` command: its verbs gathered, and every error turned into one line and an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from treestore.cli import config, ingest, maintenance, reading, versions
from treestore.cli.options import Store
from treestore.cli.output import say, write
from treestore.errors import InvalidInput, MigrationError, NotAStore, TreestoreError

app = typer.Typer(
    name="treestore",
    help="Versioned trees of documents in an embedded store.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (ingest, reading, versions, maintenance):
    group.add_verbs(app)
app.add_typer(config.app, name="config", help="The settings that apply.")

INTERRUPTED = 130
_BAD_INPUT = (InvalidInput, NotAStore, MigrationError)
# Typer does not export its usage errors under one name in all its versions; they are what a BadParameter is.
_UsageError, _CommandError = typer.BadParameter.__mro__[1:3]


def _print_version(wanted: bool) -> None:
    if wanted:
        from treestore import __version__

        write(f"treestore {__version__}\n")
        raise typer.Exit


@app.callback()
def _before_verb(
    context: typer.Context,
    store: Store = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of treestore.")
    ] = False,
) -> None:
    """Versioned trees of documents in an embedded store."""
    context.obj = store


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command (``sys.argv`` by default) and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. Every failure is one line on stderr, never a traceback.

    ``TREESTORE_DEBUG=1`` lets what was raised through, for those who look for a fault in treestore.
    """
    try:
        status = app(args=list(arguments), prog_name="treestore", standalone_mode=False) or 0
        if status == INTERRUPTED:  # what typer makes of Ctrl-C, in its later versions
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TREESTORE_DEBUG", "") not in ("", "0"):
            raise
        say(describe(error))
        return 2 if isinstance(error, (*_BAD_INPUT, _UsageError)) else 1
    return int(status)


def describe(error: Exception) -> str:
    """What an error says to a user, on one line."""
    if isinstance(error, _CommandError):
        text: str = getattr(error, "format_message", error.__str__)()
        command = getattr(getattr(error, "ctx", None), "command_path", "treestore")
        return f"{' '.join(text.split()).rstrip('.')} (see '{command} --help')"
    if isinstance(error, TreestoreError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
    if isinstance(error, MemoryError):
        return "out of memory; nothing was changed"
    return f"internal error ({type(error).__name__}: {error}); TREESTORE_DEBUG=1 shows where"
