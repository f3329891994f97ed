#!/usr/bin/env python3
"""Kills a process that writes to a store, again and again, and looks each time whether anything acknowledged is lost.

    scripts/kill_loop.py --kills 500 --minutes 30

The process writes from 8 tasks and 4 threads through the public verbs: documents small and loaded in bulk, replaced, amended
and deleted, with checkpoints, compactions and new log files all the time. SIGKILL comes at a random moment, at times in the
opening. Then everything acknowledged must be there, of what was under way each write whole or not at all, and ``check`` be
clean; and the next process goes on with the same store. Ends with status 1 at the first loss, and keeps the store as it was.

Run by a Python that treestore is not installed for, it makes the environment that scripts/demo uses, or finds it made, and
goes on there.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    from tests.engine.killing import Record, one_kill
except ModuleNotFoundError:
    from scripts.environment import go_on_inside

    go_on_inside(__file__)
    raise  # it is there that something is missing


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="so many kills at most (100)")
    parser.add_argument("--minutes", type=float, default=10.0, help="so long at most (10)")
    parser.add_argument("--first-seed", type=int, default=None, help="the seed of the first kill (by chance)")
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made (a temporary folder)")
    return parser.parse_args()


def main() -> int:
    """Kill until it is enough; the status to end with."""
    asked = arguments()
    first = random.randrange(10**6) if asked.first_seed is None else asked.first_seed
    folder = Path(tempfile.mkdtemp(prefix="treestore-kill-", dir=asked.folder))
    began, record, seed = time.monotonic(), Record(), first
    wrong: list[str] = []
    while not wrong and seed < first + asked.kills and time.monotonic() < began + 60 * asked.minutes:
        wrong = one_kill(folder, seed, record)
        seed += 1
        if seed % 50 == 0:
            print(f"{record.counts['kills']} kills ...", file=sys.stderr, flush=True)
    counts = record.counts
    took = time.monotonic() - began
    print(f"{counts['kills']} kills in {took:.0f} s, {counts['kills while opening']} of them while the store was opened")
    kinds = ", ".join(f"{counts['acknowledged: ' + kind]} {kind}" for kind in ("store", "bulk store", "amend", "delete"))
    print(f"{counts['acknowledged']} acknowledged groups: {kinds}")
    print(f"{counts['in flight, applied']} groups in flight found applied, {counts['in flight, not applied']} not")
    print(f"{counts['replayed']} groups replayed")
    print(f"{len(wrong)} failures; seeds {first} to {seed - 1}")
    if wrong:
        print(*wrong[:20], sep="\n")
        print(f"the store as the last kill left it: {folder / 'left'}")
        print(f"to try again: scripts/kill_loop.py --first-seed {first} --kills {asked.kills} (the moments differ a little)")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
