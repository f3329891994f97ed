"""A machine that does anything to a store, in any order, and compares every answer with that of the store in memory.

The stores share one clock, so even times must be equal. The native store is closed and opened again, checkpoints and
compactions come and snapshots are held while the others write.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import treestore
from tests.clock import START, SetClock
from tests.contract.samples import ALL_PLANES
from tests.stores import SyncStore
from treestore import Conflict, InvalidInput, NotFound, NotSearchable, Settings, Snapshot, SyncDriver

POLICIES = st.sampled_from(["p", "p", "p", "p2", "é"])
VERSIONS = st.sampled_from(["1", "1", "2", "3", "10"])
NODES = st.sampled_from([f"n{at}" for at in range(6)])
TEXTS = st.sampled_from([None, "", "short", ALL_PLANES, "long " * 400, "longer " * 3000]) | st.lists(
    st.sampled_from(["care", "cares", "home", "M54.5", "72148", "税収", "of"]), max_size=9
).map(" ".join)
QUERIES = st.lists(
    st.sampled_from(["caring", "home", "m54", "7214", "long", "short", "税", "title", "summary", "other", "the"]), max_size=4
).map(" ".join)
JSON = st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(-1, 1) | st.booleans() | st.lists(st.none()), max_size=2)
DATES = st.none() | st.integers(-40, 40).map(lambda days: START + timedelta(days=days))


@st.composite
def trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to a dozen nodes, flat, with parents among the earlier ones."""
    least = draw(st.sampled_from([0, 1, 3, 6]))
    names = draw(st.lists(st.integers(0, 11), unique=True, min_size=least, max_size=12))
    nodes: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        parent = draw(st.integers(0, at))
        pages = draw(st.none() | st.tuples(st.integers(0, 9), st.integers(9, 20)))
        nodes.append(
            {
                "node_id": f"n{name}",
                "parent_id": nodes[parent - 1]["node_id"] if parent else None,
                "title": draw(st.sampled_from(["", "title", ALL_PLANES])),
                "text": draw(TEXTS),
                "summary": draw(st.sampled_from([None, "", "summary"])),
                "metadata": draw(JSON),
                "page_start": pages[0] if pages else None,
                "page_end": pages[1] if pages else None,
            }
        )
    return nodes


PAGES = st.lists(st.tuples(st.integers(0, 5), TEXTS), unique_by=lambda page: page[0], max_size=3).map(
    lambda pages: [{"page": page, "content": content or ""} for page, content in pages]
)


def answered(call: Callable[[], Any]) -> Any:
    """An answer, or the error that stands for it; without what is a store's own."""
    try:
        answer = call()
    except (NotFound, InvalidInput, Conflict, NotSearchable) as error:
        return type(error), str(error)
    if isinstance(answer, treestore.StoreStats):
        return answer.documents, answer.versions, answer.nodes
    return answer


class StoreMachine(RuleBasedStateMachine):
    """The stores under test (one, or several at once) beside the one in memory. ``views``: snapshots of all of them, taken
    together; that of the one in memory is the last."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SetClock()
        self.model = treestore.open_sync("memory://", clock=self.clock)
        self.views: list[list[Snapshot[SyncDriver]]] = []
        self.stores = self.opened()

    def opened(self) -> list[SyncStore]:
        raise NotImplementedError

    def open_again(self) -> None:
        """Close what is open of the stores under test, and open them anew."""
        for views in self.views:
            for view in views:
                view.close()
        self.views.clear()
        for store in self.stores:
            store.__exit__(None, None, None)  # as leaving its "with": it is closed, and so is what runs an asynchronous one
        self.stores = self.opened()

    def teardown(self) -> None:
        for store in (*self.stores, self.model):
            store.__exit__(None, None, None)

    def both(self, call: Callable[[Any], Any]) -> None:
        """Ask every store; their answers are the same."""
        self.equal(call, (*self.stores, self.model))

    def equal(self, call: Callable[[Any], Any], asked: Sequence[Any]) -> None:
        """Ask stores or snapshots; each answers as the last one does."""
        *answers, expected = [answered(partial(call, one)) for one in asked]
        for found in answers:
            assert found == expected
            if isinstance(expected, msgspec.Struct | list):
                assert msgspec.json.encode(found) == msgspec.json.encode(expected), "equal in JSON too, where 1 is not True"

    # --- writing ---------------------------------------------------------------------------------------------------------

    @rule(
        policy_id=POLICIES,
        version_id=VERSIONS,
        nodes=trees(),
        more=st.fixed_dictionaries(
            {"pages": PAGES, "effective_date": DATES, "metadata": JSON},
            optional={"searchable": st.sampled_from([True, True, False])},
        ),
    )
    def store_document(self, policy_id: str, version_id: str, nodes: Any, more: dict[str, Any]) -> None:
        self.both(lambda store: store.documents.store_document(policy_id, version_id, nodes, **more))

    @initialize(nodes=trees(), pages=PAGES)
    def begin_with_a_document(self, nodes: Any, pages: Any) -> None:
        self.both(lambda store: store.documents.store_document("p", "1", nodes, pages=pages))

    @rule(
        policy_id=POLICIES,
        version_id=VERSIONS,
        source=VERSIONS,
        at=st.integers(0, 12),
        kind=st.sampled_from(["text", "text", "title", "metadata", "insert", "delete", "move", "nothing"]),
        text=TEXTS,
        turned=st.booleans(),
    )
    def store_what_another_version_holds_with_one_change(
        self, policy_id: str, version_id: str, source: str, at: int, kind: str, text: str | None, turned: bool
    ) -> None:
        """What one revision shares with the next is kept once by some stores."""
        try:
            held = self.model.documents.get_document(policy_id, version_id=source)
        except NotFound:
            return
        nodes = _with_one_change(held.nodes, at, kind, text)
        pages = held.pages[::-1] if turned else held.pages
        self.both(lambda store: store.documents.store_document(policy_id, version_id, nodes, pages=pages))

    @rule(
        policy_id=POLICIES,
        version_id=st.none() | VERSIONS,
        node_id=NODES,
        fields=st.fixed_dictionaries(
            {},
            optional={
                "title": st.sampled_from(["title", "other"]),
                "text": TEXTS,
                "summary": st.sampled_from([None, "", "other"]),
                "validation_status": st.sampled_from(["pending", "approved", "wrong"]),
                "metadata": JSON,
            },
        ),
    )
    def update_node(self, policy_id: str, version_id: str | None, node_id: str, fields: dict[str, Any]) -> None:
        there = answered(lambda: self.model.documents.get_outline(policy_id, version_id=version_id))
        if isinstance(there, list) and there:
            node_id = there[int(node_id[1:]) % len(there)].node_id
        self.both(lambda store: store.documents.update_node(policy_id, node_id, version_id=version_id, **fields))

    @rule(policy_id=POLICIES, version_id=VERSIONS)
    def delete_version(self, policy_id: str, version_id: str) -> None:
        self.both(lambda store: store.documents.delete_version(policy_id, version_id))

    @rule(policy_id=POLICIES)
    def delete_document(self, policy_id: str) -> None:
        self.both(lambda store: store.documents.delete_document(policy_id))

    @rule(policy_id=POLICIES, version_id=VERSIONS, date=DATES)
    def set_effective_date(self, policy_id: str, version_id: str, date: Any) -> None:
        self.both(lambda store: store.versions.set_effective_date(policy_id, version_id, date))

    @rule(hours=st.integers(0, 200))
    def let_time_pass(self, hours: int) -> None:
        self.clock.advance(hours=hours)

    # --- reading ---------------------------------------------------------------------------------------------------------

    @rule(policy_id=POLICIES, version_id=st.none() | VERSIONS, node_id=NODES, depth=st.none() | st.integers(0, 3))
    def read_around_a_node(self, policy_id: str, version_id: str | None, node_id: str, depth: int | None) -> None:
        ref = {"version_id": version_id}
        self.both(lambda store: store.documents.get_node(policy_id, node_id, **ref))
        self.both(lambda store: store.documents.get_outlines(policy_id, [node_id, "n0", node_id], **ref))
        self.both(lambda store: store.documents.get_children(policy_id, node_id, **ref))
        self.both(lambda store: store.documents.get_subtree(policy_id, node_id, depth, **ref))
        self.both(lambda store: store.documents.get_outline(policy_id, None, depth, **ref))
        self.both(lambda store: store.documents.get_ancestor_path(policy_id, node_id, **ref))

    @rule(policy_id=POLICIES, at=DATES, known_at=DATES)
    def ask_as_of(self, policy_id: str, at: Any, known_at: Any) -> None:
        self.both(lambda store: store.versions.get_version_as_of(policy_id, at, known_at))
        self.both(lambda store: store.versions.latest(policy_id))
        self.both(lambda store: store.versions.list(policy_id, include_deleted=True))

    @rule(policy_id=POLICIES, first=st.none() | st.integers(0, 5), last=st.none() | st.integers(0, 5))
    def read_pages(self, policy_id: str, first: int | None, last: int | None) -> None:
        self.both(lambda store: store.documents.get_page_texts(policy_id, first, last))

    @rule(policy_id=POLICIES, version_id=st.none() | VERSIONS, query=QUERIES, limit=st.sampled_from([1, 3, 100]))
    def search(self, policy_id: str, version_id: str | None, query: str, limit: int) -> None:
        self.both(lambda store: store.documents.search_nodes(policy_id, query, limit=limit, version_id=version_id))
        self.both(lambda store: store.documents.search_documents(query, limit))

    @rule(policy_id=POLICIES, version_id=st.none() | VERSIONS, first=st.integers(0, 21), more=st.integers(0, 9))
    def find_on_pages(self, policy_id: str, version_id: str | None, first: int, more: int) -> None:
        self.both(lambda store: store.documents.get_nodes_by_page(policy_id, first, version_id=version_id))
        self.both(lambda store: store.documents.get_nodes_by_pages(policy_id, first, first + more, version_id=version_id))

    @rule(policy_id=POLICIES, before=VERSIONS, after=VERSIONS, at=DATES)
    def ask_what_changed(self, policy_id: str, before: str, after: str, at: Any) -> None:
        self.both(lambda store: store.versions.diff(policy_id, before, after))
        self.both(lambda store: store.versions.temporal_lookup(policy_id, at or START))

    @rule(after=st.none() | POLICIES, limit=st.none() | st.integers(1, 3))
    def list_documents(self, after: str | None, limit: int | None) -> None:
        self.both(lambda store: store.documents.list_documents(after=after, limit=limit))
        self.both(lambda store: store.stats())

    # --- snapshots -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def take_a_snapshot(self) -> None:
        self.views.append([store.snapshot() for store in (*self.stores, self.model)])

    @precondition(lambda self: self.views)
    @rule(policy_id=POLICIES, which=st.integers(0, 2))
    def read_a_snapshot(self, policy_id: str, which: int) -> None:
        views = self.views[which % len(self.views)]
        calls: list[Callable[[Any], Any]] = [
            lambda view: view.documents.get_document(policy_id),
            lambda view: view.documents.list_documents(),
            lambda view: view.documents.search_documents("care home long", 20),
            lambda view: view.documents.get_nodes_by_pages(policy_id, 5, 12),
            lambda view: view.versions.list(policy_id, include_deleted=True),
        ]
        for call in calls:
            self.equal(call, views)

    @precondition(lambda self: self.views)
    @rule(which=st.integers(0, 2))
    def close_a_snapshot(self, which: int) -> None:
        for view in self.views.pop(which % len(self.views)):
            view.close()

    # --- the store itself ------------------------------------------------------------------------------------------------

    @rule()
    def check(self) -> None:
        for store in (*self.stores, self.model):
            assert store.check().problems == []

    @rule()
    def compact(self) -> None:
        for store in self.stores:
            store.compact()

    @invariant()
    def documents_are_equal(self) -> None:
        for policy_id in ("p", "p2", "é"):
            self.both(partial(_document, policy_id))


def _with_one_change(nodes: Sequence[treestore.Node], at: int, kind: str, text: str | None) -> list[dict[str, Any]]:
    """The nodes as they are given, and one of them changed, if there is one at the ordinal."""
    names = ("node_id", "parent_id", "title", "text", "summary", "metadata", "page_start", "page_end")
    given = [{name: getattr(node, name) for name in names} for node in nodes]
    if at >= len(given) or kind == "nothing":
        return given
    one = given[at]
    if kind in ("text", "title", "metadata"):
        one[kind] = {"text": text, "title": text or "", "metadata": {"b": at}}[kind]
    elif kind == "insert":
        given.insert(at, {"node_id": "new", "parent_id": one["parent_id"], "title": "title", "text": text})
    elif kind == "move":
        one["parent_id"] = None
    elif kind == "delete":
        given.remove(one)
        for other in given:
            other["parent_id"] = one["parent_id"] if other["parent_id"] == one["node_id"] else other["parent_id"]
    return given


def _document(policy_id: str, store: SyncStore) -> Any:
    return store.documents.get_document(policy_id)


class MemoryMachine(StoreMachine):
    """The asynchronous face's twin: two stores in memory, to try the machine itself and that nothing depends on chance."""

    def opened(self) -> list[SyncStore]:
        return [treestore.open_sync("memory://", clock=self.clock)]


class BtreeMachine(StoreMachine):
    """The native store, with a small cache and small log files, so that pages leave the cache and the log rotates."""

    @initialize(cache=st.sampled_from([1, 128]), log=st.sampled_from([1, 100]))
    def choose_settings(self, cache: int, log: int) -> None:
        self.settings = Settings(cache_size_mb=cache, wal_file_size_mb=log)
        self.open_again()

    def opened(self) -> list[SyncStore]:
        if not hasattr(self, "folder"):
            self.folder = tempfile.TemporaryDirectory(prefix="treestore-machine-")
            self.settings = Settings()
        url = f"btree:///{Path(self.folder.name) / 'store'}"
        return [treestore.open_sync(url, clock=self.clock, settings=self.settings)]

    @rule()
    def reopen(self) -> None:
        self.open_again()
        self.check()

    def teardown(self) -> None:
        self.check()
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize("machine", [MemoryMachine, BtreeMachine])
def test_every_answer_is_that_of_the_store_in_memory(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
