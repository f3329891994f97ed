"""Makes the virtual environment that the scripts run in, or finds it made, and prints its folder.

    environment.py [EXTRA]

It lies in ``.venv`` of the checkout or, where that can't be written or belongs to another user, in a folder of this user
under ``$TMPDIR`` (``/tmp``). A stamp, written last, says what was installed: without it the environment is half-made, and
with another one it is out of date; both are rebuilt. Scripts that start at once take turns. The standard library alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
STAMP = "treestore.json"


def refuse(message: str) -> NoReturn:
    """End with one line that says why."""
    sys.exit(f"environment: {message}")


def own_folder(path: Path) -> bool:
    """Whether ``path`` is a real folder of this user (a link could lead to someone else's)."""
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()


def environment_folder() -> Path:
    """Where the environment of this user is or will be."""
    inside = ROOT / ".venv"
    if own_folder(inside) if os.path.lexists(inside) else os.access(ROOT, os.W_OK):
        return inside
    name = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]
    parent = Path(tempfile.gettempdir(), f"treestore-{os.geteuid()}-{name}")
    parent.mkdir(mode=0o700, exist_ok=True)
    # In a shared /tmp somebody else may have put a folder of this name there, and what lies in it would be run.
    if not own_folder(parent) or parent.stat().st_mode & 0o022:
        refuse(f"{parent} is not a folder that only this user can write to; remove it, or set TMPDIR")
    return parent / "venv"


def wanted(folder: Path) -> dict[str, str]:
    """What the environment is made from, all of which is fixed when it is made."""
    return {
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "root": str(ROOT),
        "folder": str(folder),
        "python": f"{os.path.realpath(sys.executable)} {platform.python_version()}",
    }


def installed(folder: Path) -> dict[str, object]:
    """The stamp of a finished environment; empty where there is none, or where its Python has gone."""
    if not os.access(folder / "bin" / "python", os.X_OK):
        return {}
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def run(*command: str | Path) -> None:
    """Run a step; its output goes to stderr, since stdout carries the answer. Ends the script if it fails.

    The step is a group of processes of its own: what interrupts the script ends it at once, and it says nothing about it.
    """
    step = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=ROOT, start_new_session=True)
    try:
        status = step.wait()
    except BaseException:
        os.killpg(step.pid, signal.SIGKILL)
        step.wait()
        raise
    if status:
        line = " ".join(map(str, command))
        refuse(f"this step failed (status {status}, its output is above): {line}\n"
               "environment: packages come from where pip is configured to look; without a network give it a folder of wheels")


def make(folder: Path, extra: str) -> None:
    """Bring the environment to what is wanted."""
    stamp, basis = installed(folder), wanted(folder)
    had = stamp.get("extras")
    extras = sorted({*(had if isinstance(had, list) else []), *([extra] if extra else [])})
    fresh = stamp.get("basis") == basis
    if fresh and extras == had:
        return
    print(f"making {folder} ...", file=sys.stderr, flush=True)
    if fresh:
        (folder / STAMP).unlink()
    else:
        run(sys.executable, "-m", "venv", "--clear", folder)
    what = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    run(folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--editable", what)
    (folder / STAMP).write_text(json.dumps({"basis": basis, "extras": extras}), encoding="utf-8")


def go_on_inside(script: str, extra: str = "") -> None:
    """Run a script anew with its arguments, by the environment's own Python; for one whose Python lacks what it imports. Does
    nothing where that is the one which runs already: then something is missing there."""
    made = subprocess.run([sys.executable, __file__, *([extra] if extra else [])], stdout=subprocess.PIPE, check=False)
    if made.returncode:
        sys.exit(made.returncode)
    folder = Path(os.fsdecode(made.stdout).strip())
    if Path(sys.prefix).resolve() != folder.resolve():
        python = folder / "bin" / "python"
        os.execv(python, [str(python), script, *sys.argv[1:]])


def end_by(number: int, _: object) -> NoReturn:
    """End the script as a shell reports one that a signal ended."""
    sys.exit(128 + number)


def main(extra: str = "") -> None:
    """Make or find the environment, one script at a time, and print its folder. A half-made one has no stamp."""
    try:
        folder = environment_folder()
        turn = os.open(folder.parent, os.O_RDONLY)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            make(folder, extra)
        finally:
            os.close(turn)
    except OSError as error:
        refuse(f"can't make the virtual environment: {error}")
    except KeyboardInterrupt:
        print("environment: interrupted; the next run begins anew", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print(folder)


if __name__ == "__main__":
    for end in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(end, end_by)
    main(*sys.argv[1:2])
