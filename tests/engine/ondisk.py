"""What several tests of stores on a real disk need: another process, the bytes of all files, a store that is closed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.engine.workload import History, groups
from treestore.backends.btree.engine.engine import Engine, Options

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = Options(cache_bytes=1 << 20, log_file_bytes=256 * 1024)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another process that can import what this one can; must end well."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def files_of(folder: str) -> dict[str, str]:
    """All files but the lock, by their content."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def stored(folder: str, count: int = 30) -> History:
    """A closed store of two checkpoints."""
    history = History()
    engine = Engine.open(folder, OPTIONS)
    history.sent(engine, *groups(41, count))
    engine.checkpoint()
    history.sent(engine, *groups(42, 3))
    engine.close()
    return history
