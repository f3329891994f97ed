"""What changed between versions, asked of a store: the answers, what is refused, and others who write meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import pytest

from tests.clock import SetClock
from tests.contract.samples import MANUAL_IDS, bushy, manual, node
from tests.stores import BothFaces, SyncStore
from tests.trees.revisions import SHIPPED, diff_of
from treestore import Conflict, Diff, InvalidInput, NodeChange, NotFound, Place, SyncDriver, TreeStore, pageindex
from treestore.operations import Operation
from treestore.repositories import facts

R = TypeVar("R")
LISTS = ("added", "removed", "changed", "moved", "repaged")


def changed_manual() -> list[dict[str, Any]]:
    """The manual with one section edited, one amended in status, one moved, one gone, one new and one on other pages."""
    tree = [one for one in manual() if one["node_id"] != "a1x"]
    by_id = {one["node_id"]: one for one in tree}
    by_id["a"]["text"] = "all of a, and more"
    by_id["b"]["validation_status"] = "flagged"
    by_id["a2"]["parent_id"] = "b"
    by_id["a1y"].update(page_start=4, page_end=6)
    return [*tree, node("c", text="new")]


def names(changes: list[NodeChange]) -> list[str]:
    places = [change.after or change.before for change in changes]
    assert None not in places
    return [place.node_id for place in places if place]


def named(diff: Diff) -> dict[str, list[str]]:
    """The ids that a diff names, by list, without the empty ones."""
    return {name: names(getattr(diff, name)) for name in LISTS if getattr(diff, name)}


def test_all_kinds_of_changes_each_with_both_places(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.store_document("p", "2", changed_manual())
    diff = store.versions.diff("p", "1", "2")
    assert (diff.policy_id, diff.version_a, diff.version_b) == ("p", "1", "2")
    assert named(diff) == {"added": ["c"], "removed": ["a1x"], "changed": ["a", "b"], "moved": ["a2"], "repaged": ["a1y"]}
    assert [change.fields for change in diff.changed] == [("text",), ("validation_status",)]
    [moved] = diff.moved
    assert moved.before == Place(
        node_id="a2",
        ordinal=4,
        section_path="1.2",
        path=("title of a", "title of a2"),
        page_start=12,
        page_end=14,
    )
    assert moved.after is not None
    assert (moved.after.path, moved.after.section_path) == (("title of b", "title of a2"), "2.1")
    assert named(store.versions.diff("p", "2", "1")) == {
        "added": ["a1x"],
        "removed": ["c"],
        "changed": ["a", "b"],
        "moved": ["a2"],
        "repaged": ["a1y"],
    }


def test_changed_lines_and_page_indexes_are_told(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node("a", line_num=3), node("b", page_index=7)])
    store.documents.store_document("p", "2", [node("a", line_num=5), node("b", page_index=8, line_num=9)])
    diff = store.versions.diff("p", "1", "2")
    assert [change.fields for change in diff.repaged] == [("line_num",), ("page_index", "line_num")]
    places = [(place.line_num, place.page_index) for one in diff.repaged for place in (one.before, one.after) if place]
    assert places == [(3, None), (5, None), (None, 7), (9, 8)]


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*.json")))
def test_the_answer_is_that_of_the_pure_comparison(store: SyncStore, name: str) -> None:
    nodes = list(pageindex.read(str(SHIPPED / name)).nodes)
    store.documents.store_document("p", "1", nodes)
    store.documents.store_document("p", "2", [*nodes[1:], {**nodes[0], "title": "It begins anew"}])
    before, after = (store.documents.get_document("p", version_id=version_id).nodes for version_id in ("1", "2"))
    found, expected = store.versions.diff("p", "1", "2"), diff_of(before, after)
    assert [getattr(found, name) for name in LISTS] == [getattr(expected, name) for name in LISTS]
    assert names(found.changed) != []


def test_large_documents(store: SyncStore) -> None:
    before = list(bushy(5_000))
    after = [dict(one) for one in before if one["node_id"] != "04999"]
    after[2_000]["text"] = "other"
    after.append(node("new", "00007", text="new"))
    store.documents.store_document("p", "1", before)
    store.documents.store_document("p", "2", after)
    diff = store.versions.diff("p", "1", "2")
    assert named(diff) == {"added": ["new"], "removed": ["04999"], "changed": ["02000"]}
    store.documents.store_document("p", "3", [])
    assert len(store.versions.diff("p", "1", "3").removed) == len(store.versions.diff("p", "3", "1").added) == 5_000


def test_amending_in_place_is_seen(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.store_document("p", "2", manual())
    assert named(store.versions.diff("p", "1", "2")) == {}
    store.documents.update_node("p", "a1x", version_id="2", summary="amended", metadata={"by": "hand"})
    [change] = store.versions.diff("p", "1", "2").changed
    assert (names([change]), change.fields) == (["a1x"], ("summary", "metadata"))


def test_a_version_and_itself(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    assert named(store.versions.diff("p", "1", "1")) == {}


def test_what_is_missing_deleted_or_of_another_policy_is_not_found(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.store_document("p", "gone", manual())
    store.documents.store_document("q", "2", manual())
    store.documents.delete_version("p", "gone")
    for a, b, message in (
        ("1", "2", "policy 'p' has no version '2'"),
        ("2", "1", "policy 'p' has no version '2'"),
        ("2", "2", "policy 'p' has no version '2'"),
        ("1", "gone", "policy 'p' version 'gone' was deleted at"),
    ):
        with pytest.raises(NotFound, match=message):
            store.versions.diff("p", a, b)
    with pytest.raises(NotFound, match="policy 'none' does not exist"):
        store.versions.diff("none", "1", "2")


@pytest.mark.parametrize("bad", ["", "x" * 51, "\0", "\ud800", None, 1, b"1", ["1"]])
def test_what_is_no_version_id_is_refused_by_name(store: SyncStore, bad: Any) -> None:
    for field, (a, b) in {"a": (bad, "1"), "b": ("1", bad)}.items():
        with pytest.raises(InvalidInput) as caught:
            store.versions.diff("p", a, b)
        assert caught.value.field == field


def test_a_snapshot_compares_what_it_sees(steady_store: SyncStore) -> None:
    steady_store.documents.store_document("p", "1", manual())
    steady_store.documents.store_document("p", "2", changed_manual())
    with steady_store.snapshot() as snapshot:
        steady_store.documents.store_document("p", "2", manual())
        assert len(snapshot.versions.diff("p", "1", "2").changed) == 2
    assert named(steady_store.versions.diff("p", "1", "2")) == {}


# --- others meanwhile ----------------------------------------------------------------------------------------------------


class Interrupted:
    """The synchronous face of a backend on which ``first`` is done before each reading of several operations."""

    def __init__(self, backend: BothFaces, first: Callable[[], object]) -> None:
        self._backend = backend
        self._first = first

    def read_one_now(self, operation: Operation[R]) -> R:
        return self._backend.read_one_now(operation)

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self._first()
        return self._backend.read_now(operations)

    def close_now(self) -> None:
        self._backend.close_now()


@pytest.mark.parametrize("calls", range(6))
def test_a_version_that_is_replaced_meanwhile_is_compared_anew(backend: BothFaces, clock: SetClock, calls: int) -> None:
    """The other one comes first at any of the readings; ids that were there are not."""
    other = TreeStore(SyncDriver(backend, clock))
    other.documents.store_document("p", "1", manual())
    other.documents.store_document("p", "2", changed_manual())
    readings = 0

    def first() -> None:
        nonlocal readings
        if readings == calls:
            other.documents.store_document("p", "2", [{**one, "node_id": f"{one['node_id']}!"} for one in [node("x")]])
        readings += 1

    store = TreeStore(SyncDriver(Interrupted(backend, first), clock))
    diff = store.versions.diff("p", "1", "2")
    if readings > calls:
        assert named(diff) == {"added": ["x!"], "removed": MANUAL_IDS}
    else:
        assert named(diff)["added"] == ["c"]


def test_a_version_that_is_deleted_meanwhile_is_not_found(backend: BothFaces, clock: SetClock) -> None:
    other = TreeStore(SyncDriver(backend, clock))
    other.documents.store_document("p", "1", manual())
    other.documents.store_document("p", "2", changed_manual())
    readings = 0

    def first() -> None:
        nonlocal readings
        readings += 1
        if readings == 3:
            other.documents.delete_version("p", "1")

    with pytest.raises(NotFound, match="policy 'p' version '1' was deleted"):
        TreeStore(SyncDriver(Interrupted(backend, first), clock)).versions.diff("p", "1", "2")


def test_versions_that_change_without_end_are_a_conflict(backend: BothFaces, clock: SetClock) -> None:
    other = TreeStore(SyncDriver(backend, clock))
    other.documents.store_document("p", "1", manual())
    other.documents.store_document("p", "2", changed_manual())
    turns = 0

    def first() -> None:
        nonlocal turns
        turns += 1
        other.documents.update_node("p", "c", version_id="2", text=f"turn {turns}")

    store = TreeStore(SyncDriver(Interrupted(backend, first), clock))
    with pytest.raises(Conflict, match=r"^policy 'p' was changed by others"):
        store.versions.diff("p", "1", "2")
    with pytest.raises(Conflict, match=r"^policy 'p' was changed by others"):
        store.versions.temporal_lookup("p", clock.now.date())
    assert turns >= 2 * facts.ATTEMPTS


# --- the version as of a date --------------------------------------------------------------------------------------------


def test_the_version_as_of_a_date_and_what_changed_with_it(store: SyncStore, clock: SetClock) -> None:
    for version_id, tree, start in (
        ("1", manual(), date(2026, 1, 1)),
        ("2", changed_manual(), date(2026, 3, 1)),
        ("between", manual()[:1], date(2026, 2, 1)),
    ):
        clock.advance(hours=1)
        store.documents.store_document("p", version_id, tree, effective_date=start)

    first = store.versions.temporal_lookup("p", date(2026, 1, 31))
    assert (first.version.version_id, first.previous) == ("1", None)
    assert (first.changed_node_ids, first.removed_node_ids) == (MANUAL_IDS, []), "all are new where nothing was before"

    second = store.versions.temporal_lookup("p", date(2026, 2, 1))
    assert second.previous is not None
    assert (second.version.version_id, second.previous.version_id) == ("between", "1")
    assert (second.changed_node_ids, second.removed_node_ids) == ([], MANUAL_IDS[1:])

    third = store.versions.temporal_lookup("p", date(2026, 6, 1))
    assert third.version == store.versions.get_version_as_of("p", date(2026, 6, 1))
    assert third.previous == store.versions.get("p", "between")
    assert third.changed_node_ids == ["a", "a1", "a1y", "b", "a2", "b1", "c"]

    store.documents.delete_version("p", "between")
    third = store.versions.temporal_lookup("p", date(2026, 6, 1))
    assert third.previous == store.versions.get("p", "1")
    assert third.changed_node_ids == ["a", "b", "a2", "c"], "in document order; what is only on other pages did not change"
    assert third.removed_node_ids == ["a1x"]


def test_a_version_that_never_was_in_effect_is_not_the_one_before(store: SyncStore, clock: SetClock) -> None:
    start = date(2026, 2, 1)
    for version_id, day in (("1", date(2026, 1, 1)), ("lost", start), ("2", start)):
        clock.advance(hours=1)
        store.documents.store_document("p", version_id, manual(), effective_date=day)
    found = store.versions.temporal_lookup("p", date(2026, 3, 1))
    assert found.previous is not None
    assert (found.version.version_id, found.previous.version_id) == ("2", "1")
    assert (found.changed_node_ids, found.removed_node_ids) == ([], [])


def test_as_known_at_an_earlier_time(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=date(2026, 1, 1))
    clock.advance(days=1)
    store.documents.store_document("p", "2", manual(), effective_date=date(2026, 5, 1))
    before = clock.now
    clock.advance(days=1)
    store.documents.store_document("p", "1.5", changed_manual(), effective_date=date(2026, 4, 1))
    store.versions.set_effective_date("p", "2", date(2026, 3, 1))

    now = store.versions.temporal_lookup("p", date(2026, 6, 1))
    assert now.previous is not None
    assert (now.version.version_id, now.previous.version_id) == ("1.5", "2")
    then = store.versions.temporal_lookup("p", date(2026, 6, 1), known_at=before)
    assert then.previous is not None
    assert (then.version.version_id, then.previous.version_id) == ("2", "1")
    assert store.versions.temporal_lookup("p", date(2026, 4, 1), known_at=before).version.version_id == "1"


def test_what_is_not_in_effect_or_no_date_is_refused_as_by_the_other_verbs(store: SyncStore) -> None:
    with pytest.raises(NotFound, match="policy 'p' does not exist"):
        store.versions.temporal_lookup("p", date(2026, 1, 1))
    store.documents.store_document("p", "1", manual(), effective_date=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(NotFound, match="policy 'p' has no version in effect at 2025-12-31"):
        store.versions.temporal_lookup("p", date(2025, 12, 31))
    for field, arguments in {"as_of_date": ("2026-01-01", None), "known_at": (date(2026, 1, 1), 5)}.items():
        with pytest.raises(InvalidInput) as caught:
            store.versions.temporal_lookup("p", *arguments)  # type: ignore[arg-type]
        assert caught.value.field == field
    store.documents.delete_document("p")
    with pytest.raises(NotFound, match="policy 'p' was deleted"):
        store.versions.temporal_lookup("p", date(2026, 1, 1))
