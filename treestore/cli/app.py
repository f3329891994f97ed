"""The ``treestore`` command: its verbs gathered, and every error turned into one line and an exit status."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from treestore.cli import adopted, bench, changes, config, finding, ingest, maintenance, reading, rescue, versions
from treestore.cli.options import ADVICE, Store
from treestore.cli.output import OutputFailed, abandon_stdout, say, write
from treestore.errors import InvalidInput, MigrationError, NoStore, NotAStore, TreestoreError

app = typer.Typer(
    name="treestore",
    help="Versioned trees of documents, in an embedded store or PostgreSQL.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (ingest, reading, finding, versions, changes, maintenance, rescue, bench):
    group.add_verbs(app)
app.add_typer(config.app, name="config", help="The settings that apply.")
app.add_typer(adopted.app, name="db", help="The schema of a PostgreSQL store.")

INTERRUPTED = 130
_BAD_INPUT = (InvalidInput, NotAStore, MigrationError)
_LOST_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
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
    """Versioned trees of documents, in an embedded store or PostgreSQL."""
    context.obj = store


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command (``sys.argv`` by default) and exit.

    What the library logs is for programs that use it; a user of the command is told by its errors, and that a store is to be
    reindexed. ``TREESTORE_DEBUG`` shows the log too.
    """
    _open_missing_streams()
    if not _debugging():
        logging.getLogger("treestore").addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


class _Say(logging.Handler):
    """Tells a user what the library has to say about the store that is being opened."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


logging.getLogger(ADVICE).addHandler(_Say())


def _open_missing_streams() -> None:
    """Streams that the caller closed lead nowhere. Their numbers are taken, so that no file of a store gets one of them and
    receives what somebody writes to stderr."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False, encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False, encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False, encoding="utf-8")


def _debugging() -> bool:
    return os.environ.get("TREESTORE_DEBUG", "") not in ("", "0")


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
        if _debugging():
            raise
        say(describe(error))
        return 2 if isinstance(error, (*_BAD_INPUT, _UsageError)) and not isinstance(error, NoStore) else 1
    return int(status)


def describe(error: Exception) -> str:
    """What an error says to a user, on one line."""
    if isinstance(error, _CommandError):
        text: str = getattr(error, "format_message", error.__str__)()
        command = getattr(getattr(error, "ctx", None), "command_path", "treestore")
        return f"{' '.join(text.split()).rstrip('.')} (see '{command} --help')"
    if isinstance(error, TreestoreError | OutputFailed):
        return str(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in _LOST_OUTPUT:
        abandon_stdout()
        return f"cannot write to standard output: {error.strerror}"  # while typer printed a help text
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
    if isinstance(error, MemoryError):
        return "out of memory; nothing was changed"
    return f"internal error ({type(error).__name__}: {error}); TREESTORE_DEBUG=1 shows where"
