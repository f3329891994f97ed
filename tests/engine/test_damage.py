"""Damaged stores: the answer is right or an error says where. Never a wrong value, a hang, or another exception.

``scripts/damage_loop.py`` runs the same over every byte; here is what fits a few seconds, chosen by a fixed seed.
"""

from __future__ import annotations

import itertools
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import treestore
from tests.engine import damage
from tests.engine.damage import Damage, Hit, Sample
from tests.engine.ondisk import ROOT
from tests.engine.simulated import SimulatedDisk
from tests.engine.workload import STORE, Group, History, bulk_entries, contents
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import OsFileSystem
from treestore.backends.btree.engine.format import META_SIZE, META_SLOTS, PAGE_SIZE, decode_meta
from treestore.backends.btree.engine.wal import file_name
from treestore.errors import Corrupted, NotAStore

SEED = 20261129
MOST_SECONDS = 5.0  # for one look at a damaged store, which takes a hundredth of a second
MOST_MEMORY_KB = 400_000


@pytest.fixture(scope="module")
def kept() -> Sample:
    return damage.sample()


def looked_at(kept: Sample, damages: Iterable[Damage]) -> Counter[str]:
    """How many of them ended in which way."""
    found: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for one in damages:
        began = time.monotonic()
        found[damage.outcome(kept, one)] += 1
        assert time.monotonic() - began < MOST_SECONDS, one.name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KB
    return found


def test_the_sample_has_everything_in_it(kept: Sample) -> None:
    store = damage.opened(damage.disk_of(kept.files))
    engine = damage.engine_of(store)
    counts = store.check().counts
    assert all(counts[name] for name in ("pages_free", "pages_branch", "pages_overflow", "versions", "nodes", "texts"))
    assert set(engine.state.roots) == set(range(1, 15)), "every tree"
    damage.abandon(store)
    metas = [decode_meta(kept.files["data"][at : at + META_SIZE]) for at in META_SLOTS]
    assert None not in metas and len({meta.lsn for meta in metas if meta}) == 2, "two checkpoints"
    in_data = max(meta.lsn for meta in metas if meta)
    in_log = [record for record in kept.records if record.lsn > in_data]
    assert len({record.path for record in in_log}) == 2 and len(in_log) >= 5, "several files of what is in the log only"
    assert damage.outcome(kept, Damage("none", kept.files, [])) == "right"


def test_no_zeroed_range_is_answered_wrongly(kept: Sample) -> None:
    """Ranges of half a page over all files, and of a sector over the data: every byte lies in one."""
    spans = [*damage.ranges(kept, 4096), *(span for span in damage.ranges(kept, 512) if span[0] == "data")]
    zeroed = [damage.with_bytes(kept, "zero", path, at, bytes(length)) for path, at, length in spans]
    found = looked_at(kept, (one for one in zeroed if one.files != kept.files))
    assert found["refused"] > 20 and found["noticed"] > 10 and found["right"] > 20


def test_no_flipped_bit_is_answered_wrongly(kept: Sample) -> None:
    choose = random.Random(SEED)
    metas = [("data", slot + at) for slot in META_SLOTS for at in range(16, 360, 5)]
    places = [*metas, *damage.structure(kept)[::2], *choose.sample(damage.all_bytes(kept), 100)]
    used = [(record.path, choose.randrange(record.start, record.end)) for record in kept.records for _ in range(4)]
    flips = (damage.flipped(kept, path, at, 1 << choose.randrange(8)) for path, at in [*places, *used])
    found = looked_at(kept, flips)
    assert found["refused"] > 50 and found["noticed"] > 0 and found["right"] > 100


def test_no_garbage_is_answered_wrongly(kept: Sample) -> None:
    choose = random.Random(SEED + 1)
    starts = choose.sample(damage.all_bytes(kept), 60)
    lengths = (1, 40, 5000)
    spoiled = [damage.with_bytes(kept, "garbage", path, at, choose.randbytes(choose.choice(lengths))) for path, at in starts]
    assert looked_at(kept, spoiled).total() == 60


def test_no_file_that_ends_early_is_answered_wrongly(kept: Sample) -> None:
    choose = random.Random(SEED + 2)
    places = [*damage.structure(kept)[1::3], *choose.sample(damage.all_bytes(kept), 60)]
    found = looked_at(kept, (damage.cut(kept, path, at) for path, at in places))
    assert found["refused"] > 50 and found["right"] > 10


def test_no_two_pages_in_each_others_place_are_answered_wrongly(kept: Sample) -> None:
    pages = range(len(kept.files["data"]) // PAGE_SIZE)
    pairs = list(itertools.combinations(pages, 2))
    choose = random.Random(SEED + 3)
    swaps = [damage.swapped(kept, *pair) for pair in choose.sample(pairs, 120)]
    copies = [damage.misdirected(kept, *choose.sample(pages, 2)) for _ in range(80)]
    found = looked_at(kept, swaps + copies)
    assert found["refused"] > 50 and found["noticed"] > 0


def test_no_page_of_an_earlier_time_is_answered_wrongly(kept: Sample) -> None:
    """Lost writes: each page as it was one checkpoint before, alone and all together but for the meta pages."""
    pages = len(kept.earlier) // PAGE_SIZE
    alone = [damage.stale(kept, page) for page in range(1, pages)]
    changed = [one for one in alone if one.files != kept.files]
    assert looked_at(kept, changed)["refused"] > 0 and len(changed) > 3
    together = {**kept.files, "data": kept.files["data"][:PAGE_SIZE] + kept.earlier[PAGE_SIZE:]}
    assert damage.outcome(kept, Damage("all earlier", together, [])) == "refused"
    older = {**kept.files, "data": kept.earlier}
    assert damage.outcome(kept, Damage("the whole file", older, [])) in ("right", "refused"), "the log leads on from there"


# --- names ---------------------------------------------------------------------------------------------------------------


def logs(kept: Sample) -> list[str]:
    return sorted(path for path in kept.files if path.endswith(".log"))


def test_a_missing_file_is_never_an_older_store(kept: Sample) -> None:
    for path in kept.files:
        files = {name: raw for name, raw in kept.files.items() if name != path}
        found = damage.outcome(kept, Damage(f"without {path}", files, [Hit(path, 0, 1 << 62)]))
        needed = path == "data" or path in logs(kept)[1:3]
        assert (found == "refused") == needed, path


STRANGE_NAMES = [
    *(file_name(number) for number in (0, 1, 2, 3, 4, 5, 9, 2**63, 2**64 - 1, 2**64, 10**20 - 1)),
    "1.log",
    "²" * 20 + ".log",
    "-0000000000000000001.log",
    "x.log",
    "spare",
]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_a_log_file_under_another_name_is_never_replayed(kept: Sample, name: str) -> None:
    for path in logs(kept):
        hits = [Hit(f"wal/{name}", 0, 1 << 62)] if f"wal/{name}" in kept.files else []
        one = Damage(f"{path} as {name}", {**kept.files, f"wal/{name}": kept.files[path]}, hits)
        found = damage.outcome(kept, one)
        assert found in ("right", "refused")
        assert found == "right" or name.endswith(".log")


@pytest.fixture(scope="module")
def others() -> Sample:
    """Another store, made in the same way."""
    return damage.sample()


def test_another_stores_files_are_refused(kept: Sample, others: Sample) -> None:
    for path in logs(kept):
        one = Damage(f"another's {path}", {**kept.files, path: others.files[path]}, [])
        assert damage.outcome(kept, one) == "refused"
        beside = Damage("another's beside", {**kept.files, f"wal/{file_name(5)}": others.files[path]}, [])
        assert damage.outcome(kept, beside) in ("right", "refused")
    mixed = {**others.files, "data": kept.files["data"]}
    assert damage.outcome(kept, Damage("another's log", mixed, [])) == "refused"


def on_disk(kept: Sample, folder: Path) -> Path:
    """The store as real files."""
    for path, raw in kept.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    return folder


PLACES = ["data", "wal", "LOCK", "data.new", "wal/spare", *(f"wal/{file_name(number)}" for number in range(1, 6))]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere"])
def test_something_else_in_a_files_place(kept: Sample, tmp_path: Path, place: str, kind: str) -> None:
    folder = on_disk(kept, tmp_path / "store")
    path = folder / place
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    match kind:
        case "folder":
            (path / "inside").mkdir(parents=True)
        case "file":
            path.write_bytes(b"something else")
        case _:
            path.symlink_to(tmp_path / "nowhere")
    one = Damage(f"{kind} at {place}", kept.files, [Hit(place, 0, 1 << 62)])
    found = damage.outcome(kept, one, OsFileSystem(), str(folder))
    assert found in ("right", "refused")
    if place in ("data", "wal", *logs(kept)[1:3]):
        assert found == "refused"


def test_a_spare_log_file_that_is_a_folder_is_named_and_not_made_a_log_file(kept: Sample, tmp_path: Path) -> None:
    """It was renamed to the next log file, and the store could not be opened any more."""
    folder = on_disk(kept, tmp_path / "store")
    (folder / "wal" / "spare").mkdir()
    for _ in range(2):
        with treestore.open_sync(f"btree:///{folder}", create=False) as store:
            with pytest.raises(NotAStore, match="wal/spare"):
                store.documents.store_document("later", "1", [{"node_id": "n", "title": ""}])
            assert store.documents.get_node("late", "004").title == "late 4"
    (folder / "wal" / "spare").rmdir()
    with treestore.open_sync(f"btree:///{folder}", create=False) as store:
        store.documents.store_document("later", "1", [{"node_id": "n", "title": ""}])
        assert store.check().ok


def test_the_script_that_goes_through_all_of_it_runs_from_anywhere() -> None:
    script = ROOT / "scripts" / "damage_loop.py"
    command = [sys.executable, str(script), "--minutes", "0.01", "--what", "swap,flip"]
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^swap +\d+ of 528: .*refused", ran.stdout, re.MULTILINE)
    assert re.search(r"^[1-9]\d* damaged stores, 0 faults$", ran.stdout, re.MULTILINE)


# --- what was found ------------------------------------------------------------------------------------------------------


def test_an_older_checkpoint_whose_pages_were_loaded_over_is_damage() -> None:
    """The newest meta page is lost, and the log links leaves on pages that a long value had when the older one was written;
    replaying its deletion does not read it."""
    disk = SimulatedDisk()
    engine = Engine.open(STORE, fs=disk)
    history = History()
    history.sent(engine, Group({(1, b"long"): b"x" * 100_000}))
    engine.checkpoint()
    history.sent(engine, Group({(1, b"long"): None}))
    engine.checkpoint()
    engine.tidy()
    history.sent(engine, Group({}, [], [(3, bulk_entries(b"b", 20, 99))]))
    newest = META_SLOTS[engine._slot]
    engine._let_go("crash")
    again = Engine.open(STORE, fs=disk)
    assert contents(again.state) == history.models[-1]
    again._let_go("crash")
    disk.open(f"{STORE}/data").write(newest, bytes(META_SIZE))
    with pytest.raises(Corrupted, match=r"log record 3 in .*/wal .*\(page 1 is not free\)"):
        Engine.open(STORE, fs=disk)


def test_a_log_folder_that_is_a_file_is_no_store(kept: Sample, tmp_path: Path) -> None:
    folder = on_disk(kept, tmp_path / "store")
    shutil.rmtree(folder / "wal")
    (folder / "wal").write_text("x")
    with pytest.raises(Corrupted, match=r"/wal is a file"):
        treestore.open_sync(f"btree:///{folder}", create=False)
