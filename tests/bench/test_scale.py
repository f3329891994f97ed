"""``scripts/benchmark_scale.py``: small runs of each topic, what is said of them, and wrong answers that end a run."""

from __future__ import annotations

import asyncio
import gc
import inspect
from pathlib import Path
from typing import Any

import pytest

import treestore
from tests.bench.script import Outputs, run
from treestore.bench.run import Mismatch
from treestore.bench.scale import cold, growth, memory, pauses
from treestore.bench.scale.documents import Documents, store_one, verify
from treestore.bench.tables import Table, Value

SCRIPT = "benchmark_scale.py"


def here(monkeypatch: pytest.MonkeyPatch, module: Any, *jobs: str) -> None:
    """Run these jobs of a module in this process: a new one for each takes its time."""
    for job in jobs:
        monkeypatch.setattr(module, job, inspect.unwrap(getattr(module, job)))


def seconds_of(table: Table, row: tuple[Value, ...]) -> list[float]:
    pairs = zip(table.columns, row, strict=True)
    return [value for column, value in pairs if column.unit == "seconds" and isinstance(value, float)]


def test_a_small_run_in_processes_of_its_own(tmp_path: Path) -> None:
    outputs, folder = Outputs(tmp_path), tmp_path / "stores"
    folder.mkdir()
    topics = ("--topics", "growth", "recovery", "--nodes", 150, "--logs", 1, "--rounds", 1, "--folder", folder)
    ran = run(SCRIPT, *topics, *outputs.arguments)
    assert ran.returncode == 0, ran.stderr
    assert list(folder.iterdir()) == []
    one, many, recovery = (table for topic in outputs.data["topics"] for table in topic["tables"])
    assert [entry["what"] for entry in one["rows"][-2:]] == ["Open, after closing", "Open, after a kill"]
    for entry in [*one["rows"][1:], *many["rows"][1:]]:
        assert 0 < next(value for name, value in entry.items() if name in ("150", "100")) < 60
    [log] = recovery["rows"]
    assert log["groups"] >= 500
    assert log["opening"] > log["limit"] > 0
    for found in (one, many, recovery):
        assert found["title"] in ran.stdout
        assert found["title"] in outputs.drawn
        assert f"**{found['title']}**" in outputs.markdown


def test_memory_of_a_small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, memory, "read", "fill")
    for many in (False, True):
        documents = Documents.of(300, many)
        inspect.unwrap(growth.fill)(str(growth.store_folder(tmp_path, 300, many)), documents.count, documents.size)
    topic = memory.measured([300], [1], 0.05, tmp_path, lambda _: None)
    assert topic is not None
    [found] = topic.tables
    assert [row[0] for row in found.rows] == [
        f"{verb} {what}, cache 1 MB" for what in ("one document", "many documents") for verb in ("Read", "Store")
    ]
    assert all(row[-1] == 1 << 20 for row in found.rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["300-many", "300-one"]


def test_pauses_of_a_small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, pauses, "watch")
    monkeypatch.setattr(pauses, "ALONE_SECONDS", 0.05)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # it is for the whole process
    [found] = pauses.measured(60, 1, tmp_path, lambda _: None).tables
    done = [str(row[0]) for row in found.rows]
    assert done[:6:2] == ["Nothing else", "A checkpoint", "A bulk store"]
    assert done[6:] == ["The whole tree is read", "Compaction", "Check"]
    for row in found.rows:
        half, most, longest, _ = seconds_of(found, row)
        assert 0 < half <= most <= longest


def test_cold_starts_of_a_small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, cold, "fill", "ask")
    [found] = cold.measured(60, 1, False, tmp_path, lambda _: None).tables
    assert [column.heading for column in found.columns] == ["WHAT", "TREESTORE", "SQLITE", "LMDB"]
    assert [row[0] for row in found.rows] == [f"{step}, {way}" for way in ("in memory", "dropped") for step in cold.STEPS]
    assert [len(seconds_of(found, row)) for row in found.rows] == [3, 3, 3, 2] * 2


def test_a_reader_sees_who_kept_it_waiting() -> None:
    async def read(number: int) -> None:
        if number == 3:
            gc.collect()

    async def busy() -> None:
        await asyncio.sleep(0.01)

    held: list[list[int]] = [[] for _ in range(200_000)]
    found = asyncio.run(pauses.watched("collecting", read, busy))
    assert len(held) == 200_000
    assert found.busiest.mostly.startswith("gc ")
    assert 0 < found.busiest.collector <= found.busiest.computed


def test_documents_by_formula_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    documents = Documents.of(1000, many=True)
    assert (documents.count, documents.size) == (10, 100)
    asked = documents.some(50)
    assert len(set(asked)) == 50
    assert {number for number, _ in documents.tops(8)} <= set(range(10))
    assert [node for node in documents.nodes(3) if node.node_id == "0042"] == [documents.node((3, "0042"))]
    big = Documents.of(6000, many=False)
    assert {len(big.subtree(top)) for top in big.tops(4)} == {585}
    with treestore.open_sync(f"btree:///{tmp_path}/store") as store:
        store_one(store, 3, documents.nodes(3))
        found = [((3, f"{n:04}"), store.documents.get_node("manual-3", f"{n:04}")) for n in range(100)]
        verify(found, documents.node)
        verify([((3, "0000"), store.documents.get_subtree("manual-3"))], documents.subtree)
        wrong = ((4, "0042"), store.documents.get_node("manual-3", "0042"))
        with pytest.raises(Mismatch, match=r"asked for \(4, '0042'\), treestore gives a node '0042' whose title is not"):
            verify([wrong], documents.node)


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    place = tmp_path / "store"
    inspect.unwrap(growth.fill)(str(place), 1, 5)
    with pytest.raises(Mismatch, match="reopen: opened with 5 nodes in the place of 6"):
        growth.reopen(str(place), 6, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "0"], "nodes: must be from 1 to 1000000, not 0"),
        (["--nodes", "20", "10"], "nodes: must ascend"),
        (["--logs", "1001"], "logs: must be from 1 to 1000, not 1001"),
        (["--seconds", "0"], "seconds: must be above 0 and at most 3600, not 0"),
        (["--topics", "nonsense"], "argument --topics: invalid choice: 'nonsense'"),
        (["--folder", "/nonexistent/folder"], "folder: /nonexistent/folder is no folder that can be written to"),
    ],
)
def test_arguments_that_are_refused(arguments: list[str], said: str) -> None:
    ran = run(SCRIPT, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"benchmark_scale: {said}")
