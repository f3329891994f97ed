"""The processes of a server, from the system's table of them: ``/proc`` where there is one, else ``ps``."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path


def children(parent: int) -> list[int]:
    """The processes that this one started and that have not ended."""
    return [pid for pid, (of, state) in _table().items() if of == parent and state != "Z"]


def wait_for_end(pids: list[int], seconds: float) -> None:
    """Return when all have ended, also those that nobody has asked for yet. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while True:
        table = _table()
        left = [pid for pid in pids if pid in table and table[pid][1] != "Z"]
        if not left:
            return
        if time.monotonic() > until:
            raise TimeoutError(f"processes {left} did not end in {seconds:.0f} s")
        time.sleep(0.01)


def _table() -> dict[int, tuple[int, str]]:
    """Each process's parent, and its state by one letter."""
    root = Path("/proc")
    if not (root / "self" / "stat").exists():
        ran = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in ran.stdout.splitlines()]
        return {int(pid): (int(parent), state[0]) for pid, parent, state in rows}
    table = {}
    for entry in root.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has just ended
                # The name, in brackets, may hold anything: what follows the last bracket does not.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                table[int(entry.name)] = (int(parent), state)
    return table
