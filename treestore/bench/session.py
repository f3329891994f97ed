"""A whole benchmark in one call: wanted numbers checked, the corpus made, a folder of its own that is gone afterwards."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from treestore.bench import contenders, corpus
from treestore.bench.contenders import databases
from treestore.bench.run import Run, Say, run
from treestore.errors import InvalidInput
from treestore.trees.rules import MAX_NODES, shown_path

MAX_ROUNDS = 100


def bench(
    nodes: int, rounds: int, folder: Path | None = None, server: str | None = None, say: Say = lambda _: None
) -> Run:
    """Compare treestore with what else can be opened here, on a document of so many nodes.

    The stores lie in a new folder below ``folder`` (by default where the system keeps temporary files), so that is the disk
    that is measured. ``server`` is the URL of a PostgreSQL server, on which they are new databases. All is removed at the end,
    also when a signal ends the process.

    Raises InvalidInput for a number out of bounds and a folder that can't be written to, and
    :class:`~treestore.bench.run.Mismatch` if a store answers wrongly.
    """
    check_count(nodes, MAX_NODES, "nodes")
    check_count(rounds, MAX_ROUNDS, "rounds")
    place = checked_folder(folder)
    version = None if server is None else databases.check(server)
    with temporary_folder(place) as temporary:
        say("making the document")
        measured = contenders.available(server=server is not None)
        found = run(corpus.make(nodes), measured, temporary, rounds, server=server, say=say)
        return msgspec.structs.replace(found, postgres=version)


def checked_folder(folder: Path | None) -> Path:
    """Where stores are to lie: where the system keeps temporary files, unless a folder is named. Raises InvalidInput for one
    that can't be written to."""
    place = Path(tempfile.gettempdir()) if folder is None else folder
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise InvalidInput(f"{shown_path(str(place))} is no folder that can be written to", field="folder")
    return place


@contextmanager
def temporary_folder(place: Path) -> Iterator[Path]:
    """A new folder in ``place``, which is gone at the end, also when a signal ends the process."""
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="treestore-bench-", dir=place) as temporary:
        yield Path(temporary)


def check_count(value: int, most: int, field: str) -> None:
    """Raises InvalidInput unless ``1 <= value <= most``."""
    if not 1 <= value <= most:
        raise InvalidInput(f"must be from 1 to {most}, not {value}", field=field)


def check_output(path: Path, field: str) -> None:
    """Raises InvalidInput if a file can't be written there, before the time is spent on what it would hold."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"{shown_path(str(path))} can't be written to", field=field)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process as an exception does, so that what it holds is cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
