"""What the scripts that measure have in common: their outputs, and how they end.

A script prints tables, writes what --json, --markdown and --plot name, and ends with status 1 if something fails or an answer
is wrong, with 2 for a wrong argument; each time with one line that says why.
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import typer

from treestore.bench import plot
from treestore.bench.run import Mismatch
from treestore.bench.session import check_output
from treestore.bench.tables import Topic
from treestore.cli.output import OutputFailed, write, write_file, write_styled, write_table
from treestore.errors import InvalidInput, TreestoreError

Asked = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """A parser that has --json, --markdown and --plot, and says what is wrong in one line."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=name, description=description)

    def error(self, message: str) -> NoReturn:
        _refuse(self.prog, message, 2)

    def parse_with_outputs(self, given: Sequence[str]) -> Asked:
        """What was asked for, outputs checked before the time is spent on what they would hold. Raises InvalidInput."""
        self.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured as JSON")
        self.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
        self.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw it, as .svg or .png")
        asked = self.parse_args(given)
        for field in ("json", "markdown", "plot"):
            path = getattr(asked, field)
            if path is not None:
                check_output(path, f"--{field}")
        if asked.plot is not None and asked.plot.suffix not in (".svg", ".png"):
            raise InvalidInput("must end in .svg or .png", field="--plot")
        if asked.plot is not None:
            plot.check()
        return asked


def show(topics: Sequence[Topic]) -> None:
    """Print the tables of some topics, with what is to be said of them. Raises OutputFailed."""
    for topic in topics:
        for table in topic.tables:
            write(f"{table.title}\n")
            write_table([column.heading for column in table.columns], table.cells())
            write("\n")
        write_styled([[(line, "")] for line in [*topic.notes, *map(str, topic.aims), ""]], hanging=2)


def write_outputs(asked: Asked, data: Any, markdown: str, draw: Callable[[Path], object]) -> None:
    """Write the files that were asked for. Raises OutputFailed, OSError."""
    if asked.json is not None:
        write_file(asked.json, msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")
    if asked.markdown is not None:
        write_file(asked.markdown, markdown)
    if asked.plot is not None:
        draw(asked.plot)


def say(line: str) -> None:
    """One line on what is being done."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(name: str, main: Callable[[Sequence[str]], object]) -> None:
    """Run a script with the arguments of the command line, and end it."""
    try:
        main(sys.argv[1:])
    except InvalidInput as wrong:
        _refuse(name, str(wrong), 2)
    except (Mismatch, OutputFailed, OSError, TreestoreError, sqlite3.Error) as failure:
        _refuse(name, str(failure), 1)
    except KeyboardInterrupt:
        _refuse(name, "interrupted", 128 + signal.SIGINT)
    except typer.Exit as end:  # nobody reads what it prints
        sys.exit(end.exit_code)


def _refuse(name: str, message: str, status: int) -> NoReturn:
    say(f"{name}: {message}")
    sys.exit(status)
