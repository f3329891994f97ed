"""Snapshots: one moment of a store, for reading only, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.clock import SetClock, young
from tests.contract.samples import bushy, manual, node
from tests.stores import KINDS, STEADY, SyncStore
from treestore import Closed, NotFound, ReadOnly, Settings


def test_a_snapshot_does_not_see_what_is_written_later(steady_store: SyncStore, clock: SetClock) -> None:
    store = steady_store
    store.documents.store_document("p", "1", manual(), pages=[{"page": 1, "content": "old"}])
    store.documents.store_document("q", "1", manual())
    with store.snapshot() as view:
        before = view.documents.get_document("p")
        stats = view.stats()
        clock.advance(days=1)
        store.documents.update_node("p", "a", text="amended")
        store.documents.store_document("p", "1", [node("new")])
        store.documents.store_document("p", "2", [node("newer")])
        store.documents.store_document("r", "1", [node("new")])
        store.documents.delete_document("q")
        clock.advance(seconds=1)

        assert view.documents.get_document("p") == before
        assert view.documents.get_node("p", "a").text == "text of a"
        assert [version.version_id for version in view.versions.list("p")] == ["1"]
        assert [summary.policy_id for summary in view.documents.list_documents()] == ["p", "q"]
        assert view.documents.get_page_text("p", 1).content == "old"
        assert (view.stats().documents, view.stats().nodes) == (stats.documents, stats.nodes) == (2, 14)
        with pytest.raises(NotFound):
            view.versions.get("r", "1")
        with store.snapshot() as later:
            assert later.documents.get_node("p", "newer").title == "title of newer"
        assert view.documents.get_document("p") == before, "closing another snapshot does not matter"
    assert store.documents.get_node("p", "newer").title == "title of newer"


def test_an_old_snapshot_stands_while_its_pages_would_be_used_again(steady_store: SyncStore) -> None:
    store = steady_store
    store.documents.store_document("p", "1", bushy(2000))
    with store.snapshot() as view:
        before = view.documents.get_document("p")
        for turn in range(30):
            store.documents.store_document("p", "1", [node(f"{turn}", text="x" * 5_000), *bushy(300)])
        store.documents.delete_document("p")
        assert view.documents.get_document("p") == before


WRITES: dict[str, Callable[[Any], Any]] = {
    "store": lambda view: view.documents.store_document("p", "2", manual()),
    "replace": lambda view: view.documents.store_document("p", "1", [node("new")]),
    "update": lambda view: view.documents.update_node("p", "a", title="new"),
    "delete version": lambda view: view.documents.delete_version("p", "1"),
    "delete document": lambda view: view.documents.delete_document("p"),
    "effective date": lambda view: view.versions.set_effective_date("p", "1", date(2020, 1, 1)),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_snapshot_refuses_writes(steady_store: SyncStore, write: str) -> None:
    steady_store.documents.store_document("p", "1", manual())
    before = steady_store.documents.get_document("p")
    with steady_store.snapshot() as view, pytest.raises(ReadOnly, match="a snapshot can't be written to"):
        WRITES[write](view)
    assert steady_store.documents.get_document("p") == before


def test_a_closed_snapshot_says_so_and_can_be_closed_again(steady_store: SyncStore) -> None:
    steady_store.documents.store_document("p", "1", manual())
    with steady_store.snapshot() as view:
        pass
    with pytest.raises(Closed, match=r"^the snapshot is closed$"):
        view.documents.get_node("p", "a")
    view.close()
    assert steady_store.documents.get_node("p", "a").title == "title of a"


@pytest.mark.parametrize("name", STEADY)
def test_a_snapshot_past_its_maximum_age_is_closed_and_the_store_is_not(name: str, tmp_path: Path, clock: SetClock) -> None:
    kind = KINDS[name]
    settings = Settings(snapshot_max_age_seconds=0.2)
    with kind.open(kind.url(tmp_path), clock, settings) as store:
        store.documents.store_document("p", "1", manual())
        with young(0.2):
            view = store.snapshot()
            assert view.documents.get_node("p", "a").title == "title of a"
        time.sleep(0.25)
        with pytest.raises(Closed, match="maximum age"):
            view.documents.get_node("p", "a")
        assert store.documents.get_node("p", "a").title == "title of a"


def test_closing_the_store_closes_its_snapshots(steady_store: SyncStore) -> None:
    steady_store.documents.store_document("p", "1", manual())
    view = steady_store.snapshot()
    steady_store.close()
    with pytest.raises(Closed):
        view.documents.get_node("p", "a")
