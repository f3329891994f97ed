"""The crash loop finds faults that are put in on purpose, and what it prints replays them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.deliberate import DELIBERATE, ENGINE, ROOT, Deliberate, copied, tried

QUICK_NAMES = ("a bulk load is linked before it is synced", "damage is taken for a torn end")
QUICK = [fault for fault in DELIBERATE if fault.name in QUICK_NAMES]


def crash_loop(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/crash_loop.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("fault", DELIBERATE, ids=lambda fault: fault.name)
def test_each_has_its_place_in_the_engine(fault: Deliberate) -> None:
    text = (ROOT / ENGINE / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.text) == 1


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_it_is_found_in_a_copy(fault: Deliberate, tmp_path: Path) -> None:
    copied(tmp_path, fault)
    assert tried(tmp_path, fault.by, fault.seeds, fault.faults).found


def test_what_the_crash_loop_prints_replays_what_it_found(tmp_path: Path) -> None:
    copied(tmp_path, next(fault for fault in DELIBERATE if fault.name == "the folder is not synced after a log file was made"))
    ran = crash_loop(tmp_path, "--stop", "--seeds", "10", "--workload", "groups")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    [lost] = [line for line in ran.stdout.splitlines() if "LOST: groups: seed " in line]
    [replay] = [line for line in ran.stdout.splitlines() if "replay: scripts/crash_loop.py " in line]
    again = crash_loop(tmp_path, *replay.partition("crash_loop.py ")[2].split())
    assert again.returncode == 1
    assert lost in again.stdout.splitlines()


def test_the_crash_loop_finds_nothing_in_what_is_sound() -> None:
    ran = crash_loop(ROOT, "--seeds", "1", "--first-seed", "3", "--workload", "groups", "--faults", "0.05")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].endswith("s: nothing was lost")
    assert ran.stdout.splitlines()[1].split()[:2] == ["groups", "1"]
