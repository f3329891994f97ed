"""Ends a server and removes its folder when the process that started both has gone, however it went (``kill -9`` too).

    guard.py FOLDER

A process of its own, started before the server. Each line on stdin is the process id of the server that now runs in the
folder (0: none); the end of stdin says that the owner is done with it, or dead. The standard library alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

PATIENCE_SECONDS = 10.0
"""Longer than the 5 s after which PostgreSQL itself kills those of its processes that do not end, as stopped ones."""


class Guard:
    """The owner's side: a guard of ``folder``, which goes with this process or when :meth:`release` is called."""

    def __init__(self, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
        )

    def watch(self, pid: int) -> None:
        """Say which server now runs in the folder, 0 for none."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.write(b"%d\n" % pid)
            self._process.stdin.flush()

    def release(self) -> None:
        """Let it clear up, and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(2 * PATIENCE_SECONDS)


def end(pid: int) -> None:
    """End a server at once, by its own way of an immediate shutdown (which ends its children too), else by force."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        os.kill(pid, signal.SIGCONT)
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(0.02)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


def remove(folder: str) -> None:
    """Remove a folder, even if a process that is about to end still makes files in it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.1)


def main(folder: str) -> None:
    """Wait for the owner, then clear up."""
    pid = 0
    for line in sys.stdin:
        pid = int(line)
    if pid:
        end(pid)
    remove(folder)


if __name__ == "__main__":
    main(sys.argv[1])
