"""Write groups: whole or not at all, once by their id, and only if what they expect holds. At the backend's own interface."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.clock import START
from tests.contract.samples import bushy, manual, node
from tests.stores import BothFaces
from treestore import Conflict, InvalidInput, Node, NotFound, PageText, Version
from treestore.operations import (
    Absent,
    AmendNodes,
    Applied,
    Check,
    Children,
    Delete,
    DeleteRange,
    DropVersion,
    Expectation,
    FieldEquals,
    Get,
    GetNodes,
    GetVersion,
    Latest,
    PageTexts,
    Present,
    Put,
    RangeEmpty,
    ReplaceVersion,
    Scan,
    Stats,
    Subtree,
    Write,
    WriteGroup,
    new_group_id,
)
from treestore.trees.derive import derive_now
from treestore.trees.hashes import pages_hash, version_hashes


def whole(policy_id: str, version_id: str, nodes: Any = None, pages: Sequence[PageText] = ()) -> ReplaceVersion:
    """A version with its tree."""
    derived = derive_now(policy_id, version_id, manual() if nodes is None else nodes)
    roots = [one for one in derived if one.parent_id is None]
    node_hash, tree_hash = version_hashes(roots, pages_hash(pages))
    version = Version(
        policy_id=policy_id,
        version_id=version_id,
        ingested_at=START,
        created_at=START,
        updated_at=START,
        node_count=len(derived),
        root_count=len(roots),
        page_count=len(pages),
        node_hash=node_hash,
        tree_hash=tree_hash,
        pages_hash=pages_hash(pages),
        revision=1,
    )
    return ReplaceVersion(version, derived, pages)


def tombstone(version: Version) -> Version:
    return msgspec.structs.replace(version, deleted_at=START, node_count=0, root_count=0, page_count=0)


def versions(backend: BothFaces, policy_id: str) -> list[str]:
    return [version.version_id for version in backend.read_one_now(Scan(Version, (policy_id,)))]


def group(*writes: Write, expects: Sequence[Expectation] = ()) -> WriteGroup:
    return WriteGroup(writes, tuple(expects))


def test_a_group_sent_again_is_applied_once(backend: BothFaces) -> None:
    first = group(whole("p", "1"), expects=[Absent(Version, ("p", "1"))])
    assert backend.write_now(first) == Applied(first.group_id, repeated=False)
    assert backend.write_now(first) == Applied(first.group_id, repeated=True), "its id goes before its expectations"
    backend.write_now(group(Put(msgspec.structs.replace(first.writes[0].version, description="later"))))  # type: ignore[union-attr]
    assert backend.write_now(first).repeated
    assert backend.read_one_now(GetVersion("p", "1")).description == "later", "not applied again"


def test_a_large_group_sent_again_is_applied_once(backend: BothFaces) -> None:
    tree = group(whole("p", "1", list(bushy(12_000))))
    assert not backend.write_now(tree).repeated
    assert backend.write_now(tree).repeated
    assert backend.read_one_now(Stats()).nodes == 12_000


def test_a_group_that_failed_may_be_sent_again(backend: BothFaces) -> None:
    late = group(whole("p", "2"), expects=[Present(Version, ("p", "1"))])
    with pytest.raises(Conflict):
        backend.write_now(late)
    backend.write_now(group(whole("p", "1")))
    assert not backend.write_now(late).repeated
    assert versions(backend, "p") == ["1", "2"]


def test_ids_are_unique_and_ascend(backend: BothFaces) -> None:
    ids = [new_group_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(one) for one in ids} == {16}
    assert [one[:6] for one in ids] == sorted(one[:6] for one in ids)
    assert {(one[6] >> 4, one[8] >> 6) for one in ids} == {(7, 2)}, "version 7, variant of RFC 9562"


EXPECTATIONS: list[tuple[Expectation, bool]] = [
    (Absent(Version, ("p", "2")), True),
    (Absent(Version, ("p", "1")), False),
    (Present(Version, ("p", "1")), True),
    (Present(Version, ("p", "2")), False),
    (FieldEquals(Version, ("p", "1"), "revision", 1), True),
    (FieldEquals(Version, ("p", "1"), "revision", 2), False),
    (FieldEquals(Version, ("p", "1"), "updated_at", START), True),
    (FieldEquals(Version, ("p", "1"), "deleted_at", None), True),
    (FieldEquals(Version, ("p", "2"), "revision", 1), False),
    (RangeEmpty(Version, ("q",)), True),
    (RangeEmpty(Version, ("p",)), False),
    (RangeEmpty(Version, ()), False),
    (RangeEmpty(Version, ("p", "2")), True),
]


@pytest.mark.parametrize(("expects", "holds"), EXPECTATIONS, ids=[str(at) for at in range(len(EXPECTATIONS))])
def test_expectations(backend: BothFaces, expects: Expectation, holds: bool) -> None:
    backend.write_now(group(whole("p", "1")))
    trial = group(whole("new", "1"), expects=[expects])
    if holds:
        backend.write_now(trial)
    else:
        with pytest.raises(Conflict):
            backend.write_now(trial)
    assert versions(backend, "new") == (["1"] if holds else [])


def test_one_unmet_expectation_among_many_leaves_nothing_of_the_group(backend: BothFaces) -> None:
    backend.write_now(group(whole("p", "1")))
    before = backend.read_one_now(Subtree(Node, "p", "1"))
    kept = whole("p", "1", [node("other")])
    with pytest.raises(Conflict):
        backend.write_now(
            group(
                kept,
                whole("p", "2"),
                DropVersion(tombstone(kept.version)),
                expects=[Present(Version, ("p", "1")), Absent(Version, ("p", "2")), Absent(Version, ("p", "1"))],
            )
        )
    assert versions(backend, "p") == ["1"]
    assert backend.read_one_now(Subtree(Node, "p", "1")) == before


FAILING: dict[str, tuple[Write, type[Exception]]] = {
    "amend an unknown version": (AmendNodes(whole("p", "9").version, whole("p", "9").nodes[:1]), NotFound),
    "amend an unknown policy": (AmendNodes(whole("none", "9").version, whole("none", "9").nodes[:1]), NotFound),
    "amend a node that is not there": (
        AmendNodes(whole("p", "1").version, [msgspec.structs.replace(one, ordinal=99) for one in whole("p", "1").nodes[:1]]),
        InvalidInput,
    ),
    "amend another node": (
        AmendNodes(whole("p", "1").version, [msgspec.structs.replace(one, node_id="x") for one in whole("p", "1").nodes[:1]]),
        InvalidInput,
    ),
    "amend the pages of a node": (
        AmendNodes(whole("p", "1").version, [msgspec.structs.replace(one, page_end=99) for one in whole("p", "1").nodes[:1]]),
        InvalidInput,
    ),
    "drop an unknown version": (DropVersion(tombstone(whole("p", "9").version)), NotFound),
    "drop an unknown policy": (DropVersion(tombstone(whole("none", "9").version)), NotFound),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_write_that_fails_leaves_nothing_of_its_group(backend: BothFaces, case: str) -> None:
    write, error = FAILING[case]
    backend.write_now(group(whole("p", "1")))
    before = backend.read_one_now(Stats())
    changed = msgspec.structs.replace(whole("p", "1").version, description="changed")
    failing = group(whole("p", "2"), Put(changed), write, whole("q", "1"))
    with pytest.raises(error):
        backend.write_now(failing)
    assert versions(backend, "p") == ["1"]
    assert versions(backend, "q") == []
    assert backend.read_one_now(GetVersion("p", "1")).description == ""
    after = backend.read_one_now(Stats())
    assert (after.documents, after.versions, after.nodes) == (before.documents, before.versions, before.nodes)
    with pytest.raises(error):
        backend.write_now(failing)


def test_writes_apply_in_their_order_and_see_each_other(backend: BothFaces) -> None:
    first, second = whole("p", "1"), whole("p", "1", [node("a", text="second")])
    amended = [msgspec.structs.replace(one, metadata={"amended": True}) for one in second.nodes]
    backend.write_now(group(first, second))
    assert [one.text for one in backend.read_one_now(Subtree(Node, "p", "1"))] == ["second"]
    backend.write_now(group(DropVersion(tombstone(first.version)), first))
    assert len(backend.read_one_now(Subtree(Node, "p", "1"))) == 7
    backend.write_now(group(first, DropVersion(tombstone(first.version)), whole("q", "1"), Delete(Version, ("q", "1"))))
    with pytest.raises(NotFound):
        backend.read_one_now(Subtree(Node, "p", "1"))
    assert versions(backend, "q") == []
    derived = derive_now("p", "1", amended)
    rehashed = msgspec.structs.replace(
        second.version, tree_hash=version_hashes(derived)[1], node_hash=version_hashes(derived)[0]
    )
    backend.write_now(group(second, AmendNodes(rehashed, derived)))
    assert backend.read_one_now(GetNodes(Node, "p", "1", ("a",)))[0].metadata == {"amended": True}


def test_deleting_a_versions_row_takes_its_nodes_along(backend: BothFaces) -> None:
    for version_id in ("1", "2", "3"):
        backend.write_now(group(whole("p", version_id, pages=[PageText(page=1, content=version_id)])))
    backend.write_now(group(whole("q", "1")))
    backend.write_now(group(Delete(Version, ("p", "2")), Delete(Version, ("p", "none"))))
    assert versions(backend, "p") == ["1", "3"]
    assert backend.read_one_now(PageTexts("p", "3"))[0].content == "3"
    backend.write_now(group(DeleteRange(Version, ("p",))))
    assert versions(backend, "p") == []
    assert versions(backend, "q") == ["1"]
    assert backend.read_one_now(Stats()).nodes == 7
    backend.write_now(group(whole("p", "1")))
    assert len(backend.read_one_now(Subtree(Node, "p", "1"))) == 7


def test_plain_records_are_got_and_scanned_in_order(backend: BothFaces) -> None:
    rows = [("p", "2", 3), ("p", "10", 1), ("p", "1", 2), ("p1", "0", 0), ("o", "9", 9), ("p\x01", "z", 5)]
    for policy_id, version_id, hour in rows:
        version = whole(policy_id, version_id, []).version
        backend.write_now(group(whole(policy_id, version_id, [])))
        backend.write_now(group(Put(msgspec.structs.replace(version, ingested_at=START.replace(hour=hour)))))

    def scan(**kw: Any) -> list[str]:
        return [version.version_id for version in backend.read_one_now(Scan(Version, **kw))]

    got = backend.read_one_now(Get(Version, ("p", "10")))
    assert got is not None and got.ingested_at == START.replace(hour=1)
    assert backend.read_one_now(Get(Version, ("p", "none"))) is None
    assert scan(prefix=("p",)) == ["1", "10", "2"]
    assert scan(prefix=("p",), reverse=True) == ["2", "10", "1"]
    assert scan(prefix=("p",), index="ingested") == ["10", "1", "2"]
    assert scan(prefix=("p",), index="ingested", reverse=True, limit=2) == ["2", "1"]
    assert scan(prefix=("p", START.replace(hour=2)), index="ingested") == ["1"]
    assert scan(prefix=("p", "1")) == ["1"]
    assert scan(prefix=("x",)) == []
    assert scan() == ["9", "1", "10", "2", "z", "0"]
    assert scan(limit=2) == ["9", "1"]


def test_operations_read_together_see_one_moment(backend: BothFaces) -> None:
    backend.write_now(group(whole("p", "1")))
    version, roots, missing = backend.read_now([GetVersion("p", Latest()), Children(Node, "p", "1"), Get(Version, ("x", "y"))])
    assert (version.version_id, [one.node_id for one in roots], missing) == ("1", ["a", "b"], None)
    with pytest.raises(NotFound):
        backend.read_now([GetVersion("p", "1"), GetVersion("p", "2")])
    assert backend.read_now([]) == []


def test_both_faces_are_one_store(backend: BothFaces) -> None:
    async def use() -> None:
        again = group(whole("p", "1"))
        assert not (await backend.write(again)).repeated
        assert backend.write_now(again).repeated
        assert (await backend.read_one(GetVersion("p", "1"))).node_count == 7
        assert len(await backend.read([Stats(), Stats()])) == 2
        view = await backend.snapshot()
        backend.write_now(group(DropVersion(tombstone(whole("p", "1").version))))
        assert (await view.read_one(GetVersion("p", "1"))).node_count == 7
        await view.close()
        with pytest.raises(NotFound):
            await backend.read_one(GetVersion("p", "1"))
        assert (await backend.read_one(Check())).problems == []

    asyncio.run(use())


def test_a_check_finds_hashes_and_counts_that_are_wrong(backend: BothFaces) -> None:
    good = whole("p", "1")
    for spoiled in (
        msgspec.structs.replace(good.version, node_count=8),
        msgspec.structs.replace(good.version, root_count=1),
        msgspec.structs.replace(good.version, page_count=1),
        msgspec.structs.replace(good.version, tree_hash=bytes(32)),
        msgspec.structs.replace(good.version, node_hash=bytes(32)),
    ):
        backend.write_now(group(ReplaceVersion(spoiled, good.nodes)))
        report = backend.read_one_now(Check())
        assert not report.ok
        assert any("'p'" in problem and "\n" not in problem for problem in report.problems)
    for change in ({"title": "x"}, {"depth": 3}, {"tree_hash": bytes(32)}, {"text_hash": None}):
        nodes = [*good.nodes[:4], msgspec.structs.replace(good.nodes[4], **change), *good.nodes[5:]]
        backend.write_now(group(ReplaceVersion(good.version, nodes)))
        assert not backend.read_one_now(Check()).ok, change
    backend.write_now(group(good))
