#!/usr/bin/env python3
"""Puts faults into copies of the engine, one at a time, and looks whether the crash loop and the tests find each.

    scripts/deliberate_faults.py [--only PART-OF-A-NAME] [--no-control]

The faults are those of ``tests/engine/deliberate.py``, each with the workload or test that finds it and the number of seeds
within which it must. At last everything that found one is run on a copy without a fault, where it must find nothing. Prints
a line for each, and ends with status 1 if one was not found, or the control found something. Needs a Python 3.11 or newer and
nothing else: it makes the environment that scripts/test uses, or finds it made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    import hypothesis  # noqa: F401 - what the tests need
    import pytest_postgresql  # noqa: F401

    from tests.engine.deliberate import DELIBERATE, Deliberate, Found, copied, tried
except ModuleNotFoundError:
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing


def attempt(fault: Deliberate | None, by: str, seeds: int, faults: float) -> Found:
    """Try a fault, or none, on a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="treestore-fault-") as folder:
        copied(Path(folder), fault)
        return tried(Path(folder), by, seeds, faults)


def line(name: str, by: str, result: Found) -> str:
    """What came of one."""
    after = f"{result.seeds} seeds, {result.cuts} cuts, {result.faults} faults" if result.seeds else "one test"
    return f"{'found' if result.found else 'not found':<9}  {name}  [{by}: {after}, {result.seconds:.1f} s]"


def main() -> int:
    """Try all that was asked for."""
    parser = argparse.ArgumentParser(description="Put faults into copies of the engine and look whether they are found.")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name holds this")
    parser.add_argument("--no-control", action="store_true", help="leave out the runs without a fault")
    parser.add_argument("--verbose", action="store_true", help="say as what each was found")
    asked = parser.parse_args()
    chosen = [fault for fault in DELIBERATE if asked.only in fault.name]
    missed = 0
    used: dict[tuple[str, float], int] = {}
    for fault in chosen:
        result = attempt(fault, fault.by, fault.seeds, fault.faults)
        print(line(fault.name, fault.by, result), flush=True)
        if asked.verbose and result.said:
            print(f"           {result.said}")
        missed += not result.found
        run = fault.by, fault.faults
        used[run] = max(used.get(run, 0), result.seeds)
    wrong = 0
    for (by, faults), seeds in {} if asked.no_control else used.items():
        result = attempt(None, by, seeds, faults)
        print(line("anything where there is no fault", by, result), flush=True)
        wrong += result.found
    print(f"{len(chosen) - missed} of {len(chosen)} faults found; {wrong} runs without a fault found something")
    return 1 if missed or wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
