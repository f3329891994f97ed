#!/usr/bin/env python3
"""Damages every byte of a small store, in every way that tests/engine/damage.py knows, and looks at what is answered.

    scripts/damage_loop.py [--minutes M] [--seed N] [--what flip,zero,cut,swap,copy]

``flip``: one bit of each byte; ``zero``: 1, 16 and 512 bytes from each byte on; ``cut``: each file cut at each byte; ``swap``,
``copy``: every two pages in each other's place, and every page over every other one. What changes no byte is passed over. It
goes through all of it, in an order that the seed decides, until the time is over (all takes hours), and prints how many ended
how: right, refused at opening, noticed by the answers, or by a check alone. The status is 1 if anything was answered wrongly,
took too long or too much memory, or ended in another error; each is printed with what does it again. Needs a Python 3.11 or
newer and nothing else: it makes the environment that scripts/test uses, or finds it made.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    from tests.engine import damage
    from tests.engine.damage import Damage, Sample
    from treestore.backends.btree.engine.format import PAGE_SIZE
except ModuleNotFoundError:
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing

MOST_SECONDS = 5.0
HANGS_SECONDS = 60
MOST_BYTES = 2 << 30
ZEROED = (1, 16, 512)

Trial = tuple[str, str, int, int]
"""What is done, the file, and where: a byte and how many, or two pages."""


def trials(kept: Sample, what: set[str], choose: random.Random) -> list[Trial]:
    """All that can be done to the store, in random order, but for the few that are about whole pages, which come first."""
    pages = range(len(kept.files["data"]) // PAGE_SIZE)
    of_pages = [("swap", "data", *pair) for pair in itertools.combinations(pages, 2)]
    of_pages += [("copy", "data", *pair) for pair in itertools.permutations(pages, 2)]
    of_bytes = [(kind, path, at, 1) for kind in ("flip", "cut") for path, at in damage.all_bytes(kept)]
    for length in ZEROED:
        spans = ((path, at) for path, at in damage.all_bytes(kept) if any(kept.files[path][at : at + length]))
        of_bytes += [("zero", path, at, length) for path, at in spans]
    choose.shuffle(of_bytes)
    return [trial for trial in of_pages + of_bytes if trial[0] in what]


def made(kept: Sample, trial: Trial) -> Damage:
    """The store, so damaged."""
    kind, path, at, more = trial
    match kind:
        case "swap":
            return damage.swapped(kept, at, more)
        case "copy":
            return damage.misdirected(kept, at, more)
        case "flip":
            return damage.flipped(kept, path, at, 1 << at % 8)
        case "cut":
            return damage.cut(kept, path, at)
    return damage.with_bytes(kept, "zero", path, at, bytes(more))


def looked_at(kept: Sample, one: Damage) -> tuple[str, str]:
    """How it ended, and for a fault what there is to say."""
    began = time.monotonic()
    signal.alarm(HANGS_SECONDS)
    try:
        ended = damage.outcome(kept, one)
    except Exception as error:
        return "FAULT", f"{one.name}: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    took = time.monotonic() - began
    return ("FAULT", f"{one.name}: took {took:.1f} seconds") if took > MOST_SECONDS else (ended, "")


def hangs(number: int, _: object) -> NoReturn:
    """What does not come to an end is a fault like any other."""
    raise TimeoutError(f"no end after {HANGS_SECONDS} seconds")


def main() -> int:
    """Run, print, and give the status."""
    parser = argparse.ArgumentParser(description="Damages every byte of a small store and looks at what is answered.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default="flip,zero,cut,swap,copy")
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, hangs)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    kept = damage.sample()
    planned = trials(kept, set(asked.what.split(",")), random.Random(asked.seed))
    planned_by_kind = Counter(trial[0] for trial in planned)
    ends: Counter[tuple[str, str]] = Counter()
    faults, deadline = 0, time.monotonic() + 60 * asked.minutes
    for trial in planned:
        if time.monotonic() > deadline:
            break
        ended, said = looked_at(kept, made(kept, trial))
        ends[trial[0], ended] += 1
        if said:
            faults += 1
            print(f"seed {asked.seed}: {said}", flush=True)
    size = sum(map(len, kept.files.values()))
    print(f"a store of {size} bytes in {len(kept.files)} files, {kept.lsn} groups; seed {asked.seed}")
    for kind, count in planned_by_kind.items():
        of_kind = {ended: n for (which, ended), n in sorted(ends.items()) if which == kind}
        shown = ", ".join(f"{n} {ended}" for ended, n in of_kind.items()) or "none"
        print(f"{kind:5} {sum(of_kind.values())} of {count}: {shown}")
    print(f"{sum(ends.values())} damaged stores, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
