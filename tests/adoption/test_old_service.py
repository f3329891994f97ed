"""The old service by itself: what the other tests of adoption rely on is so before treestore comes to its tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.adoption import adopting, trees
from tests.adoption.old_service import schema
from tests.adoption.old_service.service import Service


@pytest.fixture(params=[False, True], ids=["depth first", "breadth first"])
def service(request: pytest.FixtureRequest, url: str) -> Iterator[Service]:
    with Service(url, breadth_first=request.param) as opened:
        yield opened


def test_it_knows_nothing_of_treestore() -> None:
    report = "import sys, tests.adoption.old_service.service; print(*sys.modules)"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", report], cwd=root, capture_output=True, text=True, check=True)
    assert not [name for name in ran.stdout.split() if name.startswith("treestore")]


def test_its_history_has_one_revision_and_is_complete(url: str) -> None:
    assert adopting.one(url, "SELECT version_num FROM alembic_version") == "693889b485e5"
    schema.compare(url)


def test_its_tables_go_and_come_again(url: str) -> None:
    before = adopting.catalog(url)
    schema.unmake(url)
    schema.make(url)
    assert adopting.catalog(url) == before


def test_it_reads_what_it_wrote(service: Service) -> None:
    service.persist("p", "1", trees.policy())
    ids = ["a", "a1", "a1x", "a1y", "a2", "b", "b1"]
    assert sorted(node.node_id for node in service.nodes("p", "1")) == ids
    assert [node.node_id for node in service.roots("p", "1")] == ["a", "b"]
    assert [node.node_id for node in service.children("p", "1", "a")] == ["a1", "a2"]
    path = "title of a > title of a1 > title of a1x"
    assert [node.node_id for node in service.by_path("p", "1", path)] == ["a1x"]
    assert sorted(node.node_id for node in service.on_page("p", "1", 3)) == ["a", "a1", "a1x", "a1y"]
    assert service.count() == (1, 7)


def test_it_ingests_again_in_each_of_its_ways(service: Service) -> None:
    first = service.persist("p", "1", trees.generation(1))
    second = service.reingest("p", "1", trees.generation(2), pdf_sha256="2")
    assert second > first
    assert service.version("p", "1").ingested_at == second
    assert service.version("p", "1").pdf_sha256 == "2"
    for number in (3, 4, 5):
        if number == 3:
            service.reingest("p", "1", trees.generation(number), nodes_first=True)
        else:
            service.reingest_by_cascade("p", "1", trees.generation(number))
        assert {node.title.split()[1] for node in service.nodes("p", "1")} == {f"g{number}"}


def test_what_is_cited_can_not_be_deleted(service: Service) -> None:
    ingested_at = service.persist("p", "1", trees.policy())
    service.persist("p", "2", trees.policy())
    service.cite("p", "1", "case 7")
    assert service.outputs("p", "1") == [("case 7", ingested_at)]
    with pytest.raises(IntegrityError):
        service.delete("p", "1")
    service.delete("p", "2")
    assert [version.version_id for version in service.versions("p")] == ["1"]
    assert service.count() == (1, 7)


def test_what_it_really_puts_there(service: Service) -> None:
    """Ids that are missing, one page of two, paths that are cut off."""
    below = {"title": "two", "page_start": 3}
    nameless: list[dict[str, Any]] = [{"title": "one", "nodes": [below]}, {"title": "three " * 100, "page_end": 4}]
    service.persist("p", "1", nameless)
    nodes = service.nodes("p", "1")
    assert [node.node_id for node in nodes] == ["", "", ""]
    assert {(node.page_start, node.page_end) for node in nodes} == {(None, None), (3, None), (None, 4)}
    service.persist("p", "2", [trees.node("a", trees.node("b"), title="x" * 499)])
    assert service.nodes("p", "2")[1].section_path == "x" * 499 + " "


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE policy_nodes SET content_hash = repeat('0', 64) WHERE node_id = 'a1'",
        "UPDATE policy_nodes SET section_path = '1.2' WHERE node_id = 'a1'",
        "UPDATE policy_nodes SET title = 'another' WHERE node_id = 'a1'",
        "DELETE FROM policy_nodes WHERE node_id = 'b1'",
        "UPDATE policy_nodes SET id = id + 1000 WHERE node_id = 'a1'",
    ],
)
def test_it_notices_what_breaks_its_rules(service: Service, url: str, statement: str) -> None:
    service.persist("p", "1", trees.policy())
    assert adopting.by_hand(url, statement) == 1
    with pytest.raises(AssertionError):
        service.roots("p", "1")


def test_real_documents(service: Service) -> None:
    for file in trees.FILES:
        service.persist(file.stem[:40], "1", trees.real(file))
        assert service.roots(file.stem[:40], "1")


def test_the_rows_of_a_database_are_seen_as_the_server_writes_them(url: str) -> None:
    with Service(url) as service:
        service.persist("p", "1", trees.policy())
        before = adopting.old_rows(url)
        service.set_status("p", "1", "a1", "flagged")
        after = adopting.old_rows(url)
    assert before["policy_versions"] == after["policy_versions"]
    assert [was != now for was, now in zip(before["policy_nodes"], after["policy_nodes"], strict=True)].count(True) == 1
