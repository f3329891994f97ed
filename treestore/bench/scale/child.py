"""Measurements in new processes: nothing is warm, nothing of an earlier one takes memory, and a store can be left open.

A job is a function of a module, marked by :func:`elsewhere`. Its arguments and its result go through JSON. The process ends at
the moment at which the result is written, by ``os._exit``: a store that the job has not closed is left as a kill leaves it.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, get_type_hints

import msgspec

from treestore.bench.run import Mismatch
from treestore.errors import TreestoreError

P = ParamSpec("P")
R = TypeVar("R")


def elsewhere(job: Callable[P, R]) -> Callable[P, R]:
    """The function, run in a new process each time. Raises Mismatch with what that process had to say, if it failed."""

    @functools.wraps(job)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        asked = msgspec.json.encode((job.__module__, job.__qualname__, args, kwargs), enc_hook=str)
        done = subprocess.run([sys.executable, "-m", __name__], input=asked, capture_output=True, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
            raise Mismatch(f"{job.__qualname__}: {lines[-1]}")
        result: R = msgspec.json.decode(done.stdout, type=get_type_hints(job)["return"])
        return result

    return run


def main() -> None:
    """Run the job that stdin names, and write its result to stdout."""
    module, name, args, kwargs = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, str, list[Any], dict[str, Any]])
    job = inspect.unwrap(getattr(import_module(module), name))
    status = 0
    try:
        sys.stdout.buffer.write(msgspec.json.encode(job(*args, **kwargs)))
    except (Mismatch, OSError, TreestoreError) as error:
        sys.stderr.write(f"{error}\n")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
