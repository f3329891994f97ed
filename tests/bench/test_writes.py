"""The benchmark of writers: a whole run of it, stores that lie to it, and what it counts."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from types import FunctionType

import pytest

import treestore
from tests.bench import script
from tests.bench.script import Outputs
from treestore.bench.run import Mismatch
from treestore.bench.tables import Aim, Column, Table, Topic, as_data, markdown, value_text
from treestore.bench.writes import amounts, held, stages
from treestore.bench.writes.disks import WatchedDisk
from treestore.bench.writes.given import Amend, Author, Delete, Store, Write, held_after, shared_out
from treestore.bench.writes.run import TOPICS, Sizes, run
from treestore.bench.writes.writers import DiskAlone, EachAlone, Gathered, Ran, Tasks, Threads, Writer
from treestore.errors import InvalidInput

SCRIPT = "benchmark_writes.py"


def test_a_small_run(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    outputs = Outputs(tmp_path)
    ran = script.run(
        SCRIPT,
        *("--groups", 4, "--rounds", 1, "--nodes", 60, "--seconds", 0.01, "--callers", 2, "--writers", 1, "--syncs", 0),
        *outputs.arguments,
        temporary=temporary,
    )
    assert ran.returncode == 0, ran.stderr
    assert list(temporary.iterdir()) == []
    topics = outputs.data["topics"]
    tables = [table for topic in topics for table in topic["tables"]]
    printed, marked, drawn = ran.stdout, outputs.markdown, outputs.drawn
    assert (len(topics), len(tables)) == (len(TOPICS), 13)
    for table in tables:
        assert f"{table['title']}\n" in printed
        assert f"**{table['title']}**" in marked
        assert table["title"] in drawn or table["rows"][0].keys() & {"per sync", "pause"}
        numbers = [value for row in table["rows"] for value in row.values() if isinstance(value, float | int)]
        assert len(numbers) >= len(table["rows"])
        assert all(value >= 0 for value in numbers)
        cut = printed.partition(f"{table['title']}\n")[2].partition("\n\n")[0]
        assert max(map(len, cut.splitlines())) <= 80, table["title"]
    [tree] = topics[TOPICS.index("stages")]["tables"]
    named = {row["stage"]: row for row in tree["rows"]}
    for heading in ("per node", "searchable"):
        assert sum(named[stage][heading] for stage in stages.ALL) == pytest.approx(named["all"][heading], rel=0.05)


def test_arguments_that_are_refused(tmp_path: Path) -> None:
    ran = script.run(SCRIPT, "writing", temporary=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "benchmark_writes: no topic 'writing'; there are groups, stages, amounts, beside\n"
    for wrong, said in (
        (Sizes(groups=0), "groups"),
        (Sizes(rounds=0), "rounds"),
        (Sizes(nodes=0), "nodes"),
        (Sizes(callers=(1, 65)), "callers"),
        (Sizes(syncs=(-0.1,)), "syncs"),
    ):
        with pytest.raises(InvalidInput, match=said):
            run(wrong, tmp_path, TOPICS)
    for seconds in (0.0, -1.0, 61.0, float("nan")):
        with pytest.raises(InvalidInput, match="seconds"):
            run(Sizes(seconds=seconds), tmp_path, TOPICS)


# --- what is written, and what must be there --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def author() -> Author:
    return Author()


def some_writes(author: Author) -> list[Write]:
    """Three documents, of which one is amended twice and one deleted."""
    trees = author.documents(3, 3)
    amendments = author.amendments(trees[1], searchable=True)
    stored = [Store(tree, searchable=True) for tree in trees]
    return [*stored, next(amendments), next(amendments), Delete(stored[2].policy_id)]


STORES: tuple[type[Writer], ...] = (Threads, Tasks, EachAlone, Gathered)


@pytest.mark.parametrize("writer", STORES)
def test_what_is_missing_or_wrong_is_found_out(writer: type[Writer], author: Author, tmp_path: Path) -> None:
    if writer in (EachAlone, Gathered):  # which deletes documents that can't be searched alone
        writes = some_writes(author)[:-1]
    else:
        writes = some_writes(author)
    opened = writer(tmp_path / "store")
    ran = opened.run(shared_out(writes, 2))
    opened.close()
    assert len(ran.latencies) == len(writes)
    held.check(writer, tmp_path / "store", ran.done)
    first, amendment = writes[0], writes[3]
    assert isinstance(first, Store)
    assert isinstance(amendment, Amend)
    other = Amend(amendment.policy_id, 2, "0002", "something else", amendment.word)
    elsewhere = Amend(first.policy_id, 0, "0000", first.tree.nodes[0].text or "", "qwnowherex", searchable=True)
    for told, said in (
        ([*writes, Store(author.document(1))], "1 documents are missing, and 0 are there"),
        (writes[1:], "0 documents are missing, and 1 are there"),
        ([*writes, other], f"{amendment.policy_id} says something else"),
        ([*writes, elsewhere], "'qwnowherex' is not found in node '0000'"),
    ):
        with pytest.raises(Mismatch, match=said):
            held.check(writer, tmp_path / "store", told)


def test_all_writes_of_a_document_are_one_callers_in_their_order(author: Author) -> None:
    writes = some_writes(author)
    shares = shared_out(writes, 2)
    assert [[write.policy_id for write in share] for share in shares] == [
        [writes[0].policy_id, *[writes[2].policy_id] * 2],
        [writes[1].policy_id] * 3,
    ]
    left = held_after(writes)
    assert list(left) == [writes[0].policy_id, writes[1].policy_id]
    last = writes[4]
    assert isinstance(last, Amend)
    assert (left[last.policy_id].texts[1], left[last.policy_id].found) == (last.text, (last.word, "0001"))


@pytest.mark.parametrize("writer", [Threads, Tasks])
def test_groups_of_many_callers_share_syncs(writer: type[Threads] | type[Tasks], author: Author, tmp_path: Path) -> None:
    def rans(callers: int) -> Ran:
        opened = writer(tmp_path / f"{callers}", WatchedDisk(0.002))
        try:
            return opened.run(shared_out([Store(tree) for tree in author.documents(32, 1)], callers))
        finally:
            opened.close()

    assert (rans(1).per_sync or 0) <= 1 < (rans(16).per_sync or 0)


def test_a_caller_that_fails_ends_the_run(author: Author, tmp_path: Path) -> None:
    never = next(author.amendments(author.document(1), searchable=False))
    for writer in (Threads, Tasks):
        opened = writer(tmp_path / writer.name)
        with pytest.raises(treestore.NotFound):
            opened.run([[Store(author.document(1))], [never]])
        opened.close()


def test_the_disk_alone_syncs_often_enough_to_be_timed(author: Author, tmp_path: Path) -> None:
    disk = DiskAlone(tmp_path / "disk")
    ran = disk.run([[Store(tree)] for tree in author.documents(4, 1)])
    disk.close()
    assert len(ran.done) == 4 * 32
    assert ran.syncs is None


# --- what is counted ---------------------------------------------------------------------------------------------------------


def test_a_watched_disk_counts_bytes_and_takes_its_time(author: Author, tmp_path: Path) -> None:
    disk = WatchedDisk()
    store = Threads(tmp_path / "store", disk)
    before = disk.copied()
    store.run([[Store(author.document(1))]])
    stored = disk.copied().since(before)
    assert (stored.pages, stored.syncs >= 1) == (0, True)
    assert len(Store(author.document(1)).encoded()) < stored.log
    disk.sync_seconds = 0.03
    began = time.perf_counter()
    store.run([[Store(author.document(1))]])
    assert time.perf_counter() - began >= 0.03
    store.close()
    assert disk.copied().pages > before.pages


def test_bytes_for_bytes(author: Author, tmp_path: Path) -> None:
    topic = amounts.measure(author, tmp_path, 4, 30, 20, lambda _: None)
    amounts_of, versions = topic.tables
    for row in amounts_of.rows:
        _, given, log, ahead, pages, each, sqlite = row
        numbers = [value for value in (given, log, ahead, pages, each, sqlite) if isinstance(value, int | float)]
        assert len(numbers) == 6
        assert numbers[0] < min(numbers[1], numbers[3])
        assert numbers[4] == sum(numbers[1:4]) / numbers[0]
        assert numbers[5] > 2, "at least once in the log, and once in the database"
    assert len(topic.aims) == 4 * len(versions.rows)


def test_every_stage_has_its_files() -> None:
    package = Path(treestore.__file__).parent
    for name in stages.STAGES:
        assert (package / name).exists(), name
    engine = package / "backends/btree/engine"
    for file, function, stage in (
        (package / "trees/given.py", "given_node", stages.VALIDATE),
        (package / "trees/hashes.py", "tree_hash", stages.HASH),
        (engine / "wal.py", "append", stages.LOG),
        (engine / "file.py", "write", stages.WRITE),
        (engine / "file.py", "sync", stages.SYNC),
        (package / "repositories/plan.py", "run", None),
        (Path(os.__file__), "sync", None),
    ):
        assert stages.stage_of(str(file), function) == stage


def test_a_stage_is_charged_for_what_it_takes() -> None:
    def spin(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    hashes = str(Path(treestore.__file__).parent / "trees/hashes.py")
    hashing = FunctionType(spin.__code__.replace(co_filename=hashes), globals())
    sampler = stages.Sampler()
    began = time.perf_counter()
    with sampler.running():
        hashing(0.05)
        gc.collect()
    taken = time.perf_counter() - began
    assert sampler.seconds[stages.HASH] >= 0.04
    assert sampler.seconds[stages.COLLECT] > 0
    assert sum(sampler.seconds.values()) <= taken


def test_values_as_text() -> None:
    assert [value_text(share, "share") for share in (0.0042, 0.15, 1.0)] == ["0.4 %", "15 %", "100 %"]
    assert [value_text(size, "bytes") for size in (7, 85_700, 6.41e6, 2e9)] == ["7 B", "85.7 kB", "6.41 MB", "2 GB"]
    assert [value_text(times, "times") for times in (0.016, 0.45, 12.5)] == ["0.016x", "0.45x", "12.5x"]
    assert [value_text(size, "memory") for size in (3 << 20, 200 << 20)] == ["3.0 MB", "200 MB"]
    assert [value_text(12_345, "count"), value_text(1.5e-3, "seconds"), value_text(None, "rate")] == ["12,345", "1.50 ms", "-"]
    columns = (Column("WHO"), Column("WHAT"), Column("RATE", "rate"))
    table = Table("", columns, (("a", "b", 1.0), ("a", "b", 2000.0), ("a", "c", 3.0)))
    assert table.cells() == [["a", "b", "1.0"], ["", "", "2,000"], ["", "c", "3.0"]]
    topic = Topic("Topic", (table,), ("a note",), (Aim("enough", "2,000", met=True),))
    assert markdown([topic]).splitlines() == [
        *("### Topic", "", "****", ""),
        *("| who | what | rate |", "| --- | --- | ---: |", "| a | b | 1.0 |", "|  |  | 2,000 |", "|  | c | 3.0 |", ""),
        *("- a note", "- enough: met (2,000)"),
    ]
    [found] = as_data([topic])["topics"]
    assert found["tables"][0]["rows"][1] == {"who": "a", "what": "b", "rate": 2000.0}

