"""What the scripts that measure have in common: arguments refused in one line, files for what was found, and an end."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from treestore.bench import plot
from treestore.bench.run import Mismatch
from treestore.bench.session import check_output
from treestore.cli.output import OutputFailed, write_file
from treestore.errors import InvalidInput, TreestoreError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line. ``folder`` and files for what was found are arguments of every benchmark."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=name, description=description)

    def error(self, message: str) -> NoReturn:
        _refuse(self.prog, message, 2)

    def add_outputs(self) -> None:
        """The arguments that every benchmark has."""
        self.add_argument("--folder", type=Path, metavar="DIR", help="where the stores are to lie (a temporary folder)")
        self.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured as JSON")
        self.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
        self.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the table, as .svg or .png")

    def checked(self, given: Sequence[str]) -> argparse.Namespace:
        """The arguments, after a look whether all files can be written. Raises InvalidInput."""
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


def say(line: str) -> None:
    """One line on what is being done."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def write_outputs(
    asked: argparse.Namespace, data: Callable[[], Any], markdown: Callable[[], str], draw: Callable[[Path], None]
) -> None:
    """Write the files that were asked for. Raises OutputFailed, OSError."""
    if asked.json is not None:
        write_file(asked.json, msgspec.json.format(msgspec.json.encode(data()), indent=2).decode() + "\n")
    if asked.markdown is not None:
        write_file(asked.markdown, markdown())
    if asked.plot is not None:
        draw(asked.plot)


def run(name: str, main: Callable[[Sequence[str]], None]) -> None:
    """Run a benchmark. What fails ends it with one line that says why: with status 2 for a wrong argument, else with 1."""
    try:
        main(sys.argv[1:])
    except InvalidInput as wrong:
        _refuse(name, str(wrong), 2)
    except (Mismatch, OutputFailed, OSError, TreestoreError, sqlite3.Error) as failure:
        _refuse(name, str(failure), 1)
    except KeyboardInterrupt:
        _refuse(name, "interrupted", 128 + signal.SIGINT)


def _refuse(name: str, message: str, status: int) -> NoReturn:
    say(f"{name}: {message}")
    sys.exit(status)
