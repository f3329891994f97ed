"""A verb reads, decides and writes. What if somebody else writes in between?

The other one is put there on purpose: a backend that lets it go first each time that a group is to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from tests.clock import SetClock
from tests.contract.samples import manual, node
from tests.stores import BothFaces
from treestore import Conflict, NotFound, StoreResult, SyncDriver, TreeStore
from treestore.backends.protocol import SyncReader
from treestore.operations import Applied, Operation, WriteGroup

R = TypeVar("R")

MAY = datetime(2026, 5, 1, tzinfo=UTC)


class Overtaken:
    """The synchronous face of a backend on which ``first`` is done before each write."""

    def __init__(self, backend: BothFaces, first: Callable[[], object]) -> None:
        self.backend = backend
        self.first = first
        self.times = 0

    def write_now(self, group: WriteGroup) -> Applied:
        self.times += 1
        self.first()
        return self.backend.write_now(group)

    def read_one_now(self, operation: Operation[R]) -> R:
        return self.backend.read_one_now(operation)

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        return self.backend.read_now(operations)

    def snapshot_now(self) -> SyncReader:
        return self.backend.snapshot_now()

    def close_now(self) -> None:
        self.backend.close_now()


@pytest.fixture
def other(backend: BothFaces, clock: SetClock) -> TreeStore[SyncDriver]:
    """The same store, as somebody else uses it."""
    return TreeStore(SyncDriver(backend, clock))


def overtaken(backend: BothFaces, clock: SetClock, *firsts: Callable[[], object]) -> tuple[TreeStore[SyncDriver], Overtaken]:
    """A store on which somebody else goes first: one of ``firsts`` before each write, then nothing."""
    rest = iter(firsts)
    between = Overtaken(backend, lambda: next(rest, lambda: None)())
    return TreeStore(SyncDriver(between, clock)), between


def test_two_that_create_one_version_at_once(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    store, between = overtaken(backend, clock, lambda: other.documents.store_document("p", "1", [node("theirs")]))
    assert store.documents.store_document("p", "1", manual()).outcome == "replaced"
    assert between.times == 2
    version = store.versions.get("p", "1")
    assert (version.node_count, version.revision, len(version.facts)) == (7, 2, 2)


def test_two_that_store_the_same_at_once(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    store, between = overtaken(backend, clock, lambda: other.documents.store_document("p", "1", manual()))
    assert store.documents.store_document("p", "1", manual()).outcome == "unchanged"
    assert (between.times, store.versions.get("p", "1").revision) == (1, 1)


def test_storing_what_another_amends(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, _ = overtaken(
        backend,
        clock,
        lambda: other.versions.set_effective_date("p", "1", MAY),
        lambda: other.documents.update_node("p", "a", text="theirs"),
    )
    assert store.documents.store_document("p", "1", [node("mine")]).outcome == "replaced"
    version = store.versions.get("p", "1")
    assert version.effective_date == MAY, "no date was given, so the one that they set stays"
    assert (version.revision, [fact.kind for fact in version.facts]) == (4, ["ingested", "effective", "ingested"])


def test_storing_what_another_deletes_revives_it(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, _ = overtaken(backend, clock, lambda: other.documents.delete_version("p", "1"))
    assert store.documents.store_document("p", "1", [node("mine")]).outcome == "created"
    assert [fact.kind for fact in store.versions.get("p", "1").facts] == ["ingested", "deleted", "ingested"]


def test_amending_beside_another_amendment(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, between = overtaken(
        backend,
        clock,
        lambda: other.documents.update_node("p", "a", title="theirs", text="theirs"),
        lambda: other.documents.update_node("p", "b1", text="theirs"),
    )
    amended = store.documents.update_node("p", "a", text="mine")
    assert (amended.title, amended.text, between.times) == ("theirs", "mine", 3)
    assert store.documents.get_node("p", "b1").text == "theirs"


def test_amending_a_node_that_another_takes_away(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, _ = overtaken(backend, clock, lambda: other.documents.store_document("p", "1", [node("new")]))
    with pytest.raises(NotFound, match=r"^policy 'p' version '1' has no node 'a'$"):
        store.documents.update_node("p", "a", text="mine")
    assert store.documents.get_node("p", "new").text is None


def test_amending_a_version_that_another_deletes(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, _ = overtaken(backend, clock, lambda: other.documents.delete_document("p"))
    with pytest.raises(NotFound, match=r"^policy 'p' was deleted"):
        store.documents.update_node("p", "a", text="mine")


def test_dating_beside_another_change(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    other.documents.store_document("p", "1", manual())
    store, _ = overtaken(
        backend,
        clock,
        lambda: other.documents.update_node("p", "a", text="theirs"),
        lambda: other.versions.set_effective_date("p", "1", MAY.replace(month=6)),
    )
    version = store.versions.set_effective_date("p", "1", MAY)
    assert (version.effective_date, version.revision) == (MAY, 4)
    assert [fact.effective_date for fact in version.facts] == [None, MAY.replace(month=6), MAY]
    assert store.documents.get_node("p", "a").text == "theirs"


def test_deleting_beside_another_change(backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock) -> None:
    for version_id in ("1", "2"):
        other.documents.store_document("p", version_id, manual())
    store, _ = overtaken(
        backend,
        clock,
        lambda: other.documents.store_document("p", "1", [node("theirs")]),
        lambda: other.documents.delete_version("p", "2"),
    )
    result = store.documents.delete_document("p")
    assert (result.version_ids, result.node_count) == (("1",), 1)
    store, _ = overtaken(backend, clock, lambda: other.documents.delete_version("q", "1"))
    other.documents.store_document("q", "1", manual())
    with pytest.raises(NotFound, match=r"^policy 'q' version '1' was deleted"):
        store.documents.delete_version("q", "1")


VERBS: list[Callable[[TreeStore[SyncDriver]], object]] = [
    lambda store: store.documents.store_document("p", "1", [node("mine")]),
    lambda store: store.documents.update_node("p", "a", text="mine"),
    lambda store: store.documents.delete_version("p", "1"),
    lambda store: store.documents.delete_document("p"),
    lambda store: store.versions.set_effective_date("p", "1", MAY),
]


@pytest.mark.parametrize("at", range(len(VERBS)))
def test_a_verb_that_is_always_overtaken_gives_up_and_changes_nothing(
    backend: BothFaces, other: TreeStore[SyncDriver], clock: SetClock, at: int
) -> None:
    def theirs() -> StoreResult:
        return other.documents.store_document("p", "1", manual(), description=str(clock.advance(seconds=1)))

    theirs()
    between = Overtaken(backend, theirs)
    with pytest.raises(Conflict, match=r"^policy 'p'.* was changed by others 64 times in a row; try again later$"):
        VERBS[at](TreeStore(SyncDriver(between, clock)))
    assert between.times == 64
    assert [one.text for one in other.documents.get_document("p").nodes] == [one.get("text") for one in manual()]
