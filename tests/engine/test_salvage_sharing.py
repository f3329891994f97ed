"""Versions that share rows, page texts and postings are salvaged each for itself, whatever is lost."""

from __future__ import annotations

from typing import Any

import pytest

import treestore
from tests.engine import damage
from tests.engine.damage import Sample
from tests.engine.simulated import SimulatedDisk
from tests.engine.test_salvage import Found, Truth, assert_true, truth_of
from tests.engine.workload import STORE
from treestore.backends.btree.engine.format import PAGE_SIZE
from treestore.backends.btree.engine.salvage import find_remains
from treestore.backends.btree.keyspace import HEADS, LAYOUTS
from treestore.backends.btree.salvage import Salvage
from treestore.records import Document


@pytest.fixture(scope="module")
def shared() -> tuple[Sample, Truth]:
    """Versions of which each shares with the one before, and some were amended since; all of it in pages."""
    disk = SimulatedDisk()
    store = damage.opened(disk, create=True)
    pages = [{"page": page, "content": f"page {page}"} for page in range(1, 6)]
    tree = damage.nodes(120, "shared")
    for version in range(6):
        tree = [{**one, "text": f"new in {version}"} if at % 40 == version * 7 else one for at, one in enumerate(tree)]
        given = pages if version < 3 else [*pages[1:], {"page": 9, "content": "another"}]
        store.documents.store_document("shapes", str(version), tree, pages=given)
    store.documents.update_node("shapes", "050", version_id="1", title="amended in 1", text=None)
    store.documents.update_node("shapes", "051", version_id="4", summary="amended in 4")
    store.documents.delete_version("shapes", "2")
    store.documents.store_document("large", "1", damage.nodes(120, "shared"))
    wide: list[dict[str, Any]] = [{"node_id": "00", "title": "one"}]
    wide += [{"node_id": f"{at:02}", "parent_id": "00", "title": "one"} for at in range(1, 60)]
    for turn in range(12):  # in which each section is of one of two kinds: more combinations than can be tried
        places, said = (2 * turn + 1, 40), f"new in {turn}"
        wide = [{**one, "title": said} if at in places else one for at, one in enumerate(wide)]
        store.documents.store_document("bulk", str(turn), wide)
    for name in "12":
        title = f"the first section of {name}"
        few = [{**one, "title": title} if at == 1 else one for at, one in enumerate(damage.nodes(5, "late"))]
        store.documents.store_document("late", name, few)
    store.documents.update_node("late", "003", version_id="1", title="amended when there was another version")
    damage.engine_of(store).compact()
    damage.abandon(store)
    return Sample(damage.files_of(disk), b"", {}, 0, []), truth_of(disk)


def without(kept: Sample, trees: set[int]) -> Found:
    """What is found when all leaves of some trees are gone."""
    raw = bytearray(kept.files["data"])
    remains = find_remains(damage.disk_of({"data": bytes(PAGE_SIZE) + bytes(raw[PAGE_SIZE:])}), STORE, 1 << 20)
    entries = Salvage(remains).entries
    for leaf in list(remains.leaves()):
        if entries._tree_of(leaf) in trees:
            raw[leaf.page * PAGE_SIZE + 13] ^= 1
    return Found(damage.disk_of({**kept.files, "data": bytes(raw)}))


@pytest.mark.parametrize("trees", [{LAYOUTS}, {LAYOUTS, HEADS}], ids=["layouts", "layouts and heads"])
def test_versions_are_put_together_again_where_no_layout_is_left(shared: tuple[Sample, Truth], trees: set[int]) -> None:
    kept, truth = shared
    found = without(kept, trees)
    assert found.trees >= {LAYOUTS}
    assert found.whole.keys() == truth.keys()
    assert found.whole == truth


def test_every_page_lost_in_turn(shared: tuple[Sample, Truth]) -> None:
    kept, truth = shared
    lost = set()
    for page in range(1, len(kept.files["data"]) // PAGE_SIZE):
        one = damage.with_bytes(kept, "zero", "data", page * PAGE_SIZE, bytes(PAGE_SIZE))
        found = Found(damage.disk_of(one.files))
        assert_true(found, truth, one.name)
        lost.add(len(found.parts))
    assert 0 in lost and max(lost) > 3, "what versions share is missed in all of them"


def test_a_salvaged_store_holds_them_all(shared: tuple[Sample, Truth], tmp_path_factory: pytest.TempPathFactory) -> None:
    kept, truth = shared
    raw = damage.flipped(kept, "data", (len(kept.files["data"]) // PAGE_SIZE - 1) * PAGE_SIZE + 20, 1).files
    source, target = tmp_path_factory.mktemp("damaged") / "store", tmp_path_factory.mktemp("saved") / "store"
    for path, content in raw.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    report = treestore.salvage(source, target)
    with treestore.open_sync(f"btree:///{target}", create=False) as store:
        assert store.check().problems == []
        lost = {(one.policy_id, one.version_id) for one in report.lost}
        for (policy, version), whole in truth.items():
            if (policy, version) not in lost and isinstance(whole, Document):
                assert store.documents.get_document(policy, version_id=version) == whole
        assert len(truth) == 6 + 1 + 12 + 2
