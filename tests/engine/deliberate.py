"""Faults put into a copy of the engine on purpose, to see that the crash loop, or a test of damage, finds them.

Each is one piece of text of one file, which occurs there once, and what stands in its place. ``scripts/deliberate_faults.py``
runs them all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path("treestore", "backends", "btree", "engine")


class Deliberate(NamedTuple):
    """A fault. ``by`` is the workload of the crash loop that finds it within ``seeds`` seeds, the part ``faults`` of whose
    operations is made to fail, or the test that does, with its file."""

    name: str
    file: str
    text: str
    instead: str
    by: str
    seeds: int = 10
    faults: float = 0.0


class Found(NamedTuple):
    """Whether a fault was found, after how many seeds (0: by a test), cuts, failing operations and seconds, and what was
    said."""

    found: bool
    seeds: int
    cuts: int
    faults: int
    seconds: float
    said: str


DELIBERATE = [
    Deliberate(
        "a group is acknowledged without a sync of the log",
        "engine.py",
        "                self._log.sync()\n",
        "                pass\n",
        "groups",
    ),
    Deliberate(
        "every second batch is acknowledged without a sync",
        "engine.py",
        "                self._log.sync()\n",
        "                if batch.state.lsn % 2:\n                    self._log.sync()\n",
        "tasks",
    ),
    Deliberate(
        "a failed sync of the log is tried again",
        "wal.py",
        """        if self._file is not None:
            self._file.sync()
""",
        """        if self._file is not None:
            try:
                self._file.sync()
            except SyncFailed:
                self._file.sync()
""",
        "groups",
        faults=1.0,
    ),
    Deliberate(
        "a failed sync does not stop writes",
        "engine.py",
        "            except SyncFailed as error:\n                self._poisoned(error)\n                raise\n\n",
        "            except SyncFailed:\n                raise\n\n",
        "checkpoints",
        faults=1.0,
    ),
    Deliberate(
        "what a failed sync lost is not written again at opening: the log",
        "wal.py",
        "            write_again(file, batch, offset - batch)\n",
        "",
        "groups",
        faults=1.0,
    ),
    Deliberate(
        "what a failed sync lost is not written again at opening: the meta page",
        "recovery.py",
        "        write_again(data, META_SLOTS[slot], META_SIZE)\n",
        "",
        "bulk",
        faults=1.0,
    ),
    Deliberate(
        "a sync may succeed beside one that failed",
        "engine.py",
        "        with self._syncing:\n            if self._poison is not None:",
        "        with contextlib.nullcontext():\n            if self._poison is not None:",
        "tests/engine/test_faults.py::test_a_sync_beside_one_that_failed_and_has_not_said_so_yet_makes_nothing_durable",
    ),
    Deliberate(
        "a checkpoint's pages are not synced before its meta page is written",
        "engine.py",
        "            self._sync(file)\n            meta = ",
        "            meta = ",
        "checkpoints",
    ),
    Deliberate(
        "a meta page is not synced",
        "engine.py",
        "            self._sync(file)\n        except",
        "        except",
        "checkpoints",
    ),
    Deliberate(
        "a meta page is written over the newest one",
        "engine.py",
        "            slot = 1 - self._slot\n",
        "            slot = self._slot\n",
        "checkpoints",
        seeds=40,
    ),
    Deliberate(
        "the log is trimmed before the meta page is synced",
        "engine.py",
        "            file.write(META_SLOTS[slot], encode_meta(meta))\n",
        "            file.write(META_SLOTS[slot], encode_meta(meta))\n            self._log.trim(meta.lsn)\n",
        "rotation",
        seeds=40,
    ),
    Deliberate(
        "a checkpoint says that the log ended where it ends when it is durable",
        "engine.py",
        "            yield from checkpoint.write(PageWriter(file))\n",
        "            yield from checkpoint.write(PageWriter(file))\n"
        "            checkpoint._log_end = self._log.end(self.state.lsn)\n",
        "checkpoints",
    ),
    Deliberate(
        "the folder is not synced after a log file was made",
        "wal.py",
        "            file.sync()\n            self._fs.sync_folder(self._folder)\n        except",
        "            file.sync()\n        except",
        "groups",
    ),
    Deliberate(
        "a log file gets another name before the last one is there for good",
        "wal.py",
        "            self._fs.sync_folder(self._folder)  # a file whose last",
        "            # a file whose last",
        "tests/engine/test_wal.py::test_a_file_that_is_used_again_has_one_name_after_any_cut",
    ),
    Deliberate(
        "the folder is not synced after a compaction",
        "engine.py",
        "            self._fs.sync_folder(self.folder)\n            self._old_pagers",
        "            self._old_pagers",
        "compaction",
    ),
    Deliberate(
        "the store's own folder is not synced when it is created",
        "recovery.py",
        "    sync_parent(fs, folder)\n",
        "",
        "groups",
    ),
    Deliberate(
        "recovery does not sync the log that it read",
        "wal.py",
        "            write_again(file, batch, offset - batch)\n            file.sync()\n",
        "            write_again(file, batch, offset - batch)\n",
        "groups",
    ),
    Deliberate(
        "a page is used again before the checkpoint that no longer needs it",
        "freelist.py",
        "                self._pending.append((epoch, runs))\n",
        "                self.give_back(runs)\n",
        "bulk",
    ),
    Deliberate(
        "a page is used again although a reader needs it",
        "freelist.py",
        "(keep if oldest_reader is not None and entry[0] > oldest_reader else gone)",
        "gone",
        "snapshots",
        seeds=40,
    ),
    Deliberate(
        "recovery leaves the pages of bulk loads among the free ones",
        "recovery.py",
        "        freelist.reserve(coalesce(run for change in changes for new in change.grafts for run in new.runs))\n",
        "        pass\n",
        "bulk",
    ),
    Deliberate(
        "a bulk load is linked before it is synced",
        "bulk.py",
        "            self._sync(self.pager.file)\n",
        "            pass\n",
        "bulk",
    ),
    Deliberate(
        "a group is replayed although the checkpoint holds it",
        "wal.py",
        "            if record.lsn > after:\n",
        "            if record.lsn >= after:\n",
        "tests/engine/test_opening.py::test_a_store_that_does_not_say_where_its_records_end_is_read_whole",
    ),
    Deliberate(
        "a record's checksum is not looked at",
        "format.py",
        " and crc32(payload, crc32(self.raw[8:], salt)) == self.checksum\n",
        "\n",
        "groups",
    ),
    Deliberate(
        "a log file's number is left out of its checksums",
        "format.py",
        'crc32(store_id + number.to_bytes(8, "little"))',
        "crc32(store_id)",
        "rotation",
    ),
    Deliberate(
        "a torn batch is taken for damage",
        "wal.py",
        "            if head.batch > lsn:\n",
        "            if head.lsn > lsn:\n",
        "groups",
    ),
    Deliberate(
        "damage is taken for a torn end",
        "wal.py",
        "                later = _later_batch(fs, store_id, log_file, offset, lsn)\n",
        "                later = 0\n",
        "tests/engine/test_wal.py::test_damage_that_a_later_batch_follows_is_refused_and_located",
    ),
    Deliberate(
        "a group that failed is left in the log",
        "wal.py",
        "            self._file.write(self._offset, bytes(len(raw)))\n            self._file.sync()\n",
        "",
        "groups",
        faults=1.0,
    ),
    Deliberate(
        "a write that failed in part stops all others although none of its groups is whole",
        "wal.py",
        "            if whole or isinstance(second, SyncFailed):\n",
        "            if isinstance(second, TreestoreError):\n",
        "tests/engine/test_faults.py::test_a_full_disk_stays_readable_and_takes_writes_again_when_there_is_room",
    ),
    Deliberate(
        "a node that readers see is changed in place",
        "tree.py",
        "        if node.maker == self.number:\n",
        "        if not node.page:\n",
        "snapshots",
    ),
    Deliberate(
        "a group that failed half-way is left in its batch",
        "batch.py",
        "            self._redo()\n",
        "",
        "tests/engine/test_faults.py::test_a_page_that_cannot_be_read_spoils_its_group_alone",
    ),
    Deliberate(
        "a page's checksum is not compared with its parent's",
        "format.py",
        "    if checksum != reference & 0xFFFFFFFF:\n",
        "    if checksum != checksum:\n",
        "tests/engine/test_format.py::test_a_page_in_anothers_place_or_of_another_time_is_noticed",
    ),
    Deliberate(
        "a page's checksum is not looked at",
        "format.py",
        "    if crc32(memoryview(raw)[4 : PAGE_HEADER + used], page) != checksum:\n",
        "    if checksum != checksum:\n",
        "tests/engine/test_format.py::test_damage_of_a_leaf_is_noticed",
    ),
]
"""All of them."""


def copied(folder: Path, fault: Deliberate | None = None) -> None:
    """Put what the crash loop and the tests need into a folder, with a fault in it."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("treestore", "tests", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if fault is not None:
        path = folder / ENGINE / fault.file
        text = path.read_text(encoding="utf-8")
        if text.count(fault.text) != 1:
            raise ValueError(f"{fault.name}: its text occurs {text.count(fault.text)} times in {fault.file}")
        path.write_text(text.replace(fault.text, fault.instead), encoding="utf-8")


def tried(folder: Path, by: str, seeds: int, faults: float) -> Found:
    """Run a workload, or a test, on a copy."""
    if by.startswith("tests/"):
        command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", by]
    else:
        options = ("--stop", "--seeds", str(seeds), "--workload", by, "--faults", str(faults))
        command = [str(Path("scripts", "crash_loop.py")), *options]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"{command}: {ran.stdout}{ran.stderr}")
    found = ran.returncode == 1
    if by.startswith("tests/"):
        said = re.search(r"^E +(.*)", ran.stdout, re.MULTILINE)
        return Found(found, 0, 0, 0, seconds, said[1] if said else "")
    said = re.search(r"LOST: (.*)", ran.stdout)
    counted = re.search(r"^all +(.*)", ran.stdout, re.MULTILINE)
    assert counted is not None, ran.stdout + ran.stderr
    count, _, *cuts, failed, _ = map(int, counted[1].split())
    return Found(found, count, sum(cuts), failed, seconds, said[1] if said else "")
