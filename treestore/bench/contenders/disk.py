"""The disk alone: how long it takes until so many bytes are durable, whoever writes them. No durable commit can be faster."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from treestore.bench.corpus import Tree

DISK = "disk alone"
"""What tables and plots call it."""

PREPARED = 32 << 20


class Disk:
    """A file that has been written before, so that its size stays."""

    def __init__(self, folder: Path, size: int = PREPARED) -> None:
        self._size = size
        self._file = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(self._file, bytes(size))
        os.fsync(self._file)
        self._end = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def append(self, written: bytes) -> None:
        """Write these bytes behind the last ones, or from the start of the file where they reach its end, and sync it."""
        if self._end + len(written) > self._size:
            self._end = 0
        self._end += os.pwrite(self._file, written, self._end)
        os.fdatasync(self._file)


def encoded(tree: Tree) -> bytes:
    """What a tree says, in the fewest bytes that a common format makes of it."""
    return msgspec.msgpack.encode((tree.version, tree.nodes))
