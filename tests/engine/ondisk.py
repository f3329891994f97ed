"""What several tests of stores on a real disk need: another process, a small disk, the bytes of all files, a closed store."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

from tests.engine.workload import History, groups
from treestore.backends.btree.engine.engine import Engine, Options

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = Options(cache_bytes=1 << 20, log_file_bytes=256 * 1024)


def run_python(code: str, *arguments: str, on: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Another process that can import what this one can; must end well. ``on`` is what runs it, as :func:`small_disk` says."""
    command = [*on, sys.executable, "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def child_of(work: Callable[[], int]) -> int:
    """A forked process that does this, ends with its answer, and is ended if it hangs."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            signal.alarm(20)
            status = work()
        finally:
            os._exit(status)
    return child


def forked(in_child: Callable[[], int]) -> int:
    """The exit status of a child that does this and no more; negative if it hung."""
    return os.waitstatus_to_exitcode(os.waitpid(child_of(in_child), 0)[1])


_MOUNTS = {
    "tmpfs": 'mount -t tmpfs -o "size=$1m" tmpfs "$2"',
    "ext4": 'truncate -s "$1m" "$2.image" && mkfs.ext4 -qF -m 0 "$2.image" && mount -o loop "$2.image" "$2"',
}


@functools.cache
def _namespace(kind: str) -> tuple[str, ...] | None:
    """What runs a command where it may mount this kind of file system, unseen by others and gone with the command."""
    for prefix in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        with tempfile.TemporaryDirectory() as folder:
            probe = [*prefix, "sh", "-ec", _MOUNTS[kind], "sh", "8", os.path.join(folder, "disk")]
            os.mkdir(probe[-1])
            try:
                if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                    return prefix
            except FileNotFoundError:
                return None
    return None


def small_disk(kind: str, folder: Path, megabytes: int) -> tuple[str, ...] | None:
    """What :func:`run_python` is to run on, so that an empty file system of this kind and size is mounted at a folder while
    the process lives; None where this user may not mount one."""
    prefix = _namespace(kind)
    if prefix is None:
        return None
    return *prefix, "sh", "-ec", _MOUNTS[kind] + ' && shift 2 && exec "$@"', "sh", str(megabytes), str(folder)


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
