"""A service's life with treestore: before it comes, while both work, and after it has gone, every answer of both is right, and
the service's rows and tables are at the end what they would have been without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import treestore
from tests.adoption import adopting, questions, trees
from tests.adoption.old_service import rules
from tests.adoption.old_service.service import Service, Tree
from tests.adoption.writers import assert_same_for_both, together
from tests.postgres import databases

DOCUMENTS: dict[tuple[str, str], Tree] = {
    ("p", "1"): trees.policy(),
    ("p", "2"): trees.policy("other"),
    ("q", "1"): trees.written(40, 2),
    ("nameless", "1"): [{"title": "one", "nodes": [{"title": "two", "page_start": 3}]}],
    ("empty", "1"): [],
    **{(file.stem[:40], "1"): trees.real(file) for file in trees.FILES},
}
GOOD = [key for key in DOCUMENTS if key[0] != "nameless"]


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    with Service(url) as running:
        for (policy_id, version_id), tree in DOCUMENTS.items():
            running.persist(policy_id, version_id, tree)
        running.cite("p", "1", "case 1")
        running.set_status("p", "2", "a1", "flagged")
        yield running


def assert_it_works(service: Service, at: str) -> None:
    """All that the service does, on a policy of its own and on one that it has; it checks each answer by itself."""
    for key, tree in DOCUMENTS.items():
        found = service.nodes(*key)
        assert [node.title for node in service.roots(*key)] == [root["title"] for root in tree]
        if key != ("nameless", "1"):
            assert [node.node_id for node in found] == rules.preorder(found)
    new = f"new {at}"
    service.persist(new, "1", trees.policy())
    service.persist(new, "2", trees.generation(1))
    service.cite(new, "1", at)
    service.reingest(new, "1", trees.generation(2))
    service.reingest_by_cascade(new, "1", trees.generation(3))
    assert service.set_status(new, "1", "n3", "approved") == 1
    node = service.node(new, "1", "n3")
    assert node is not None
    assert node.validation_status == "approved"
    assert service.by_path(new, "1", node.section_path)
    assert [found.node_id for found in service.children(new, "1", "n3")]
    assert all(found.page_start is not None and found.page_start <= 4 for found in service.on_page(new, "1", 4))
    service.delete(new, "2")
    assert [version.version_id for version in service.versions(new)] == ["1"]
    assert [case for case, _ in service.outputs(new, "1")] == [at]
    assert service.count()[1] > 0


def assert_treestore_works(service: Service, store: Any, at: str) -> None:
    """All that treestore does, on what the service has and on what it has not."""
    for key in GOOD:
        assert_same_for_both(service, store, key)
    new = f"ours {at}"
    store.documents.store_document(new, "1", trees.given(trees.policy()), pages=[{"page": 1, "content": "kept"}])
    assert_same_for_both(service, store, (new, "1"))
    store.documents.update_node(new, "a1", title="amended")
    assert [node.section_path for node in service.children(new, "1", "a1")] == [
        "title of a > amended > title of a1x",
        "title of a > amended > title of a1y",
    ]
    assert {hit.node.node_id for hit in store.documents.search_nodes(new, "amended")} == {"a1"}
    assert store.documents.get_page_text(new, 1).content == "kept"
    service.reingest(new, "1", trees.generation(5))
    assert_same_for_both(service, store, (new, "1"))
    service.cite(new, "1")
    store.documents.delete_version(new, "1")
    assert service.nodes(new, "1") == []


def test_before_beside_and_after(url: str, service: Service) -> None:
    assert_it_works(service, "before")
    before, tables = adopting.old_rows(url), adopting.catalog(url)
    adopting.upgrade(url)
    assert adopting.old_rows(url) == before
    assert_it_works(service, "adopted")
    with treestore.open_sync(url) as store:
        assert_treestore_works(service, store, "underived")
        assert list(adopting.broken(adopting.derive(url))) == [("nameless", "1")]
        assert_it_works(service, "derived")
        assert_treestore_works(service, store, "derived")
        adopting.repair(url)
        assert_treestore_works(service, store, "repaired")
        assert store.check().problems == []
    at_last = adopting.old_rows(url)
    adopting.downgrade(url)
    assert adopting.old_rows(url) == at_last
    assert adopting.catalog(url) == tables
    assert_it_works(service, "after")
    adopting.upgrade(url)
    with treestore.open_sync(url) as store:
        assert_it_works(service, "again")
        assert_treestore_works(service, store, "again")
    assert adopting.deadlocks(url) == 0


def test_all_at_once(url: str, service: Service) -> None:
    """The service works while it is adopted, derived and read, and while treestore goes."""
    until = threading.Event()
    turns: list[int] = []

    def work() -> None:
        while not until.is_set():
            assert_it_works(service, f"at once {len(turns)}")
            turns.append(1)

    def adopt_and_go() -> None:
        for verbs in (("upgrade",), ("derive",), ("repair",), ("downgrade", "base", "--yes"), ("upgrade",), ("derive",)):
            began = len(turns)
            ran = adopting.run(url, *verbs)
            assert ran.status == 0 or "others held the rows" in ran.err, ran
            while len(turns) < began + 2 and not until.is_set():
                until.wait(0.01)
        done.append(True)

    done: list[bool] = []
    together(work, adopt_and_go, until=until, holds=lambda: bool(done))
    assert adopting.deadlocks(url) == 0


def test_old_rows_are_the_same_to_the_byte_when_treestore_has_gone(url: str, service: Service) -> None:
    """Values of every kind, as the server writes them as text, in the order of ids; and the tables as the service made
    them."""
    moment = "2001-01-01 00:00:00.000001"
    odd = "UPDATE policy_nodes SET text = %s, updated_at = %s WHERE id = 1"
    assert adopting.by_hand(url, odd, "\x01\t\\N\r\n\U0010ffff", moment) == 1
    assert adopting.by_hand(url, "UPDATE policy_versions SET effective_date = %s, source_url = ''", moment) > 1
    rows, tables = adopting.old_rows(url), adopting.catalog(url)
    compared = partial(adopting.one, url, "SELECT last_value FROM policy_nodes_id_seq")
    last_id = compared()
    adopting.upgrade(url)
    adopting.derive(url)
    adopting.repair(url, "--all")
    with treestore.open_sync(url) as store:
        for key in GOOD:
            for question in questions.about_tree(*key, DOCUMENTS[key]):
                questions.told(lambda q=question: q.of(store))  # type: ignore[misc]
    assert adopting.old_rows(url) == rows
    adopting.downgrade(url)
    assert adopting.old_rows(url) == rows
    assert adopting.catalog(url) == tables
    assert compared() == last_id


def test_a_database_without_the_services_tables_is_not_adopted() -> None:
    """Nor does going back leave anything of it."""
    name = databases.new_name()
    url = databases.server().make_database(name)
    adopting.upgrade(url)
    adopting.downgrade(url)
    assert adopting.catalog(url) == []
