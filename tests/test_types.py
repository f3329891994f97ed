"""What a type checker says of programs that use treestore: both faces have their own result types."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent

PROGRAM = """
from datetime import date
import treestore

with treestore.open_sync("memory://") as store:
    reveal_type(store)
    reveal_type(store.documents.get_node("p", "a"))
    reveal_type(store.documents.get_outline("p", "a", 1, version_id="1"))
    reveal_type(store.documents.store_document("p", "1", [{"title": "x"}], tags=["a"]))
    reveal_type(store.versions.list("p"))
    reveal_type(store.versions.get_version_as_of("p", date(2026, 1, 1)))
    reveal_type(store.check())
    with store.snapshot() as view:
        reveal_type(view.documents.get_children("p"))
    store.documents.update_node("p", "a", titel="x")
    store.documents.get_node("p")
    store.documents.get_node("p", 1)


async def use() -> None:
    async with treestore.open() as store:
        reveal_type(store)
        reveal_type(store.documents.get_node("p", "a"))
        reveal_type(await store.documents.get_nodes("p", ["a"]))
        reveal_type(await store.versions.latest("p"))
        async with store.snapshot() as view:
            reveal_type(await view.documents.get_ancestor_path("p", "a"))
        with store:
            pass
    reveal_type(await treestore.open())
"""

USER = """
from datetime import date
from typing import Any
import treestore


def titles(store: treestore.SyncTreeStore, policy: str) -> list[str]:
    return [node.title for node in store.documents.get_outline(policy)]


async def in_effect(store: treestore.AsyncTreeStore, policy: str, day: date) -> str:
    version = await store.versions.get_version_as_of(policy, day)
    return version.version_id


async def exported(store: treestore.AsyncTreeStore, policy: str) -> dict[str, Any]:
    async with store.snapshot() as view:
        return treestore.pageindex.write(await view.documents.get_document(policy))


def main() -> None:
    settings = treestore.Settings(cache_size_mb=64)
    with treestore.open_sync("memory://", settings=settings) as store:
        result = store.documents.store_document("p", "1", [{"node_id": "a", "title": "A"}], tags=["x"])
        print(result.outcome, titles(store, "p"), store.check().ok)


async def async_main() -> None:
    async with treestore.open() as store:
        print(await in_effect(store, "p", date(2026, 1, 1)), await exported(store, "p"))
    opened: treestore.AsyncTreeStore = await treestore.open("memory://")
    await opened.close()
"""
"""A program as a user writes it, who names both faces in signatures."""

EXPECTED = [
    '6: note: Revealed type is "treestore.store.TreeStore[treestore.repositories.plan.SyncDriver]"',
    '7: note: Revealed type is "treestore.records.Node"',
    '8: note: Revealed type is "list[treestore.records.Outline]"',
    '9: note: Revealed type is "treestore.records.StoreResult"',
    '10: note: Revealed type is "list[treestore.records.Version]"',
    '11: note: Revealed type is "treestore.records.Version"',
    '12: note: Revealed type is "treestore.records.CheckReport"',
    '14: note: Revealed type is "list[treestore.records.Node]"',
    '15: error: Argument "titel" has incompatible type "str"; expected "Never"',
    "16: error: Too few arguments",
    '17: error: Argument 2 has incompatible type "int"; expected "str"',
    '22: note: Revealed type is "treestore.store.TreeStore[treestore.repositories.plan.AsyncDriver]"',
    '23: error: Value of type "Coroutine[Any, Any, Node]" must be used',
    "23: note: Are you missing an await?",
    '23: note: Revealed type is "typing.Coroutine[Any, Any, treestore.records.Node]"',
    '24: note: Revealed type is "list[treestore.records.Node]"',
    '25: note: Revealed type is "treestore.records.Version"',
    '27: note: Revealed type is "list[treestore.records.Node]"',
    '28: error: Invalid self argument "TreeStore[AsyncDriver]" to attribute function "__enter__"',
    '28: error: Invalid self argument "TreeStore[AsyncDriver]" to attribute function "__exit__"',
    '30: note: Revealed type is "treestore.store.TreeStore[treestore.repositories.plan.AsyncDriver]"',
]


def test_both_faces_have_their_own_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    user = tmp_path / "user.py"
    user.write_text(USER)
    monkeypatch.chdir(ROOT)
    out, err, _ = api.run(["--strict", "--no-pretty", "--cache-dir", str(tmp_path / "cache"), str(program), str(user)])
    assert err == ""
    assert [line for line in out.splitlines() if "user.py:" in line] == []
    said = [line.split("program.py:", 1)[1] for line in out.splitlines() if "program.py:" in line]
    assert [line[: len(expected)] for line, expected in zip(said, EXPECTED, strict=True)] == EXPECTED
