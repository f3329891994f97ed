#!/usr/bin/env python3
"""Cuts the power of simulated disks under the native engine, again and again, and looks whether anything is lost.

    scripts/crash_loop.py --seeds 20                     every workload with seeds 0 to 19
    scripts/crash_loop.py --seeds 100000 --minutes 30    as many as there is time for

A seed makes a run of each workload. The run is cut at each of its operations in four ways, what is left is opened and looked
at; now and then it is opened to be cut again inside the recovery and what follows it, and once more inside the next one.
With ``--faults PART`` that part of the operations of each run is made to fail besides, each in a run of its own. Prints how
much was looked at and, for each failure, the command that replays it. Ends with status 1 if anything was lost. Needs a Python
3.11 or newer and nothing else: it makes the environment that scripts/test uses, or finds it made.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    from tests.engine.crashing import WORKLOADS, Lost, Tally, crash, fail
except ModuleNotFoundError:
    from scripts.environment import go_on_inside

    go_on_inside(__file__)
    raise  # it is there that something is missing

COLUMNS = ("workload", "seeds", "operations", "cuts", "second cuts", "third cuts", "faults", "failures")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Cut the power of simulated disks under the native engine.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds to run (default: 5)")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="begin no run after so long")
    parser.add_argument("--first-seed", type=int, default=0, metavar="K", help="the first seed (default: 0)")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="this one only; may be given again")
    parser.add_argument("--faults", type=float, default=0.0, metavar="PART", help="part of operations to fail (default: 0)")
    parser.add_argument("--stop", action="store_true", help="end at the first failure")
    return parser.parse_args()


def run(name: str, seed: int, faults: float, tally: Tally) -> None:
    """One workload with one seed; a failure is noted and printed."""
    make = partial(WORKLOADS[name], seed)
    try:
        crash(make, seed, tally)
        if faults:
            fail(make, seed, tally, faults)
    except Lost as error:
        more = f" --faults {faults}" if faults else ""
        replay = f"scripts/crash_loop.py --seeds 1 --first-seed {seed} --workload {name}{more}"
        tally.failures.append(replay)
        print(f"\rLOST: {name}: {error}\n  replay: {replay}", flush=True)


def row(name: str, tally: Tally) -> str:
    """A line of the table."""
    cells = (tally.seeds, tally.operations, *(tally.cuts[depth] for depth in (1, 2, 3)), tally.faults, len(tally.failures))
    return "  ".join([f"{name:<12}", *(f"{cell:>{len(title)}}" for cell, title in zip(cells, COLUMNS[1:], strict=True))])


def main() -> int:
    """Run all that was asked for, and print the table."""
    asked = arguments()
    logging.getLogger("treestore").setLevel(logging.CRITICAL)  # it says what each failing disk did to it
    names = asked.workload or list(WORKLOADS)
    tallies = {name: Tally() for name in names}
    started = time.monotonic()
    for seed, name in ((seed, name) for seed in range(asked.first_seed, asked.first_seed + asked.seeds) for name in names):
        if time.monotonic() - started > 60 * asked.minutes:
            break
        if sys.stdout.isatty():
            cuts = sum(tally.cuts.total() for tally in tallies.values())
            print(f"\rseed {seed}, {name:<12} {cuts} cuts", end="", flush=True)
        run(name, seed, asked.faults, tallies[name])
        if asked.stop and tallies[name].failures:
            break
    if sys.stdout.isatty():
        print("\r", end="")
    whole = Tally()
    print("  ".join([f"{COLUMNS[0]:<12}", *COLUMNS[1:]]))
    for name, tally in tallies.items():
        print(row(name, tally))
        whole.add(tally)
    print(row("all", whole))
    seconds = time.monotonic() - started
    outcome = f"{len(whole.failures)} runs lost something" if whole.failures else "nothing was lost"
    print(f"{whole.cuts.total()} cuts and {whole.faults} faults in {seconds:.0f} s: {outcome}")
    return 1 if whole.failures else 0


if __name__ == "__main__":
    sys.exit(main())
