"""Every key of the native store: byte order is the order of what it is made of, and a range holds just what begins so."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import treestore
from tests.engine.simulated import SimulatedDisk
from tests.engine.test_keycode import TEXTS, TUPLES, rank
from tests.engine.workload import SMALL, STORE
from treestore import SyncDriver, TreeStore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.keyspace import (
    FAMILIES,
    MAX_NUMBER,
    index_key,
    interval_key,
    number_key,
    posting_key,
    primary_key,
    two_numbers,
    under,
)
from treestore.catalog import TABLES
from treestore.records import Version
from treestore.store import utc_now

NUMBERS = st.integers(0, MAX_NUMBER) | st.sampled_from([0, 1, 255, 256, 2**16, 2**31 - 1, 2**31, MAX_NUMBER - 1, MAX_NUMBER])
SHORT = st.integers(0, 2**16 - 1) | st.sampled_from([0, 255, 256, 2**16 - 1])
TAILS = TEXTS | st.text(st.sampled_from("ab\0\xff\U00010000"), max_size=3)
MOMENTS = st.datetimes(timezones=st.timezones() | st.just(UTC)) | st.integers(-(2**40), 2**40).map(
    lambda micros: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
)


def by_text(number: int, tail: str) -> bytes:
    return number_key(number, tail.encode())


def by_bytes(number: int, tail: bytes) -> bytes:
    return number_key(number, tail)


KEYS: dict[str, tuple[Callable[..., bytes], st.SearchStrategy[tuple[Any, ...]]]] = {
    "nodes, texts, pages, page numbers, lengths": (two_numbers, st.tuples(NUMBERS, NUMBERS)),
    "layouts, node ids": (by_text, st.tuples(NUMBERS, TAILS)),
    "groups": (by_bytes, st.tuples(NUMBERS, st.binary(min_size=16, max_size=16))),
    "postings": (posting_key, st.tuples(NUMBERS, SHORT, TAILS)),
    "page intervals": (interval_key, st.tuples(NUMBERS, st.integers(0, 255), NUMBERS)),
    "heads": (str.encode, st.tuples(TAILS)),
}


def ordered(key: tuple[Any, ...]) -> list[Any]:
    """What the order of keys is: part by part, texts by code points."""
    return [[ord(c) for c in part] if isinstance(part, str) else part for part in key]


@pytest.mark.parametrize("name", KEYS)
def test_the_order_of_keys_is_the_order_of_their_parts(name: str) -> None:
    made, parts = KEYS[name]

    @given(parts, parts)
    def check(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
        for a, b in ((one, other), (one, (*one[:-1], other[-1])), (one, (one[0], *other[1:]))):
            assert (made(*a) < made(*b)) == (ordered(a) < ordered(b))
            assert (made(*a) == made(*b)) == (a == b)

    check()


@pytest.mark.parametrize("name", [name for name in KEYS if name != "heads"])
def test_a_number_is_one_range(name: str) -> None:
    made, parts = KEYS[name]

    @given(parts, NUMBERS)
    def check(key: tuple[Any, ...], number: int) -> None:
        for wanted in {number, key[0], max(key[0] - 1, 0), min(key[0] + 1, MAX_NUMBER)}:
            low, high = under(wanted)
            assert (low <= made(*key) and (high is None or made(*key) < high)) == (key[0] == wanted)

    check()


@pytest.mark.parametrize("parts", [(2**32, 0), (0, 2**32), (-1, 0), (0, -1)])
def test_a_number_without_room_makes_no_key(parts: tuple[int, int]) -> None:
    with pytest.raises(struct.error):
        two_numbers(*parts)
    with pytest.raises(struct.error):
        interval_key(parts[0], 0, parts[1])
    if parts[0]:
        with pytest.raises(OverflowError):
            number_key(parts[0])


def version(policy_id: str, version_id: str, moment: datetime) -> Version:
    return Version(
        policy_id=policy_id, version_id=version_id, ingested_at=moment, created_at=moment, updated_at=moment, revision=1
    )


@given(st.tuples(TAILS, TAILS, MOMENTS), st.tuples(TAILS, TAILS, MOMENTS))
@example(("p", "1", datetime(2026, 1, 1, tzinfo=UTC)), ("p", "1", datetime(2026, 1, 1, 1, tzinfo=UTC)))
def test_versions_and_their_index_are_in_order(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    table = TABLES[Version]
    records = [version(*one), version(*other), version(one[0], *other[1:]), version(one[0], other[1], one[2])]
    for a in records:
        for b in records:
            keys = [keycode.encode(table.key_of(record)) for record in (a, b)]
            told = [(ordered((record.policy_id, record.version_id))) for record in (a, b)]
            assert (keys[0] < keys[1]) == (told[0] < told[1])
            for index in FAMILIES[Version].indexes:
                entries = [index_key(table, index, record) for record in (a, b)]
                said = [
                    (ordered((record.policy_id,)), record.ingested_at.astimezone(UTC), ordered((record.version_id,)))
                    for record in (a, b)
                ]
                assert (entries[0] < entries[1]) == (said[0] < said[1])
                assert primary_key(table, index, entries[0]) == keys[0]


@settings(max_examples=40, deadline=None)
@given(st.lists(TUPLES, max_size=60), TUPLES)
def test_an_engine_gives_tuples_back_in_order(keys: list[tuple[Any, ...]], prefix: tuple[Any, ...]) -> None:
    engine = Engine.open(STORE, SMALL, fs=SimulatedDisk())
    raws = sorted({keycode.encode(key) for key in keys})
    engine.commit([job := Job(lambda _: [TreeChange(1, raws, [b"v"] * len(raws))])])
    assert job.error is None
    engine.checkpoint()
    found = [keycode.decode(raw) for raw, _ in engine.state.scan(1, b"", None)]
    ranks = [[rank(part) for part in key] for key in found]
    assert ranks == sorted(ranks)
    assert len(found) == len(raws)
    begun = [raw for raw, _ in engine.state.scan(1, *keycode.prefix_range(prefix))]
    assert [keycode.decode(raw) for raw in begun] == [
        key for key in found if [rank(part) for part in key[: len(prefix)]] == [rank(part) for part in prefix]
    ]
    engine.close()


ODD_IDS = [
    "a", "a b", "aa", "A", "b", "~", "\x7f", "\x80", "\xff", "é", "e\u0301", "\u00c5", "\u212b", "A\u030a", "\u07ff", "\u0800",
    "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff", "1", "10", "2", "01", "-1", "税", "税収",
]  # fmt: skip


def test_odd_ids_are_kept_apart_and_in_the_order_of_code_points() -> None:
    """Of documents, versions and nodes, through the public verbs; what one text normalises to is another id."""
    store = TreeStore(SyncDriver(BtreeBackend.open(STORE, fs=SimulatedDisk()), utc_now))
    ids = [one for one in ODD_IDS if accepted(one)]
    assert len(ids) > 25
    tree = [{"node_id": one, "title": one, "text": f"text of {one}"} for one in ids]
    for one in reversed(ids):
        store.documents.store_document(one, "1", [{"node_id": one, "title": one}])
        store.documents.store_document("versions", one, [{"node_id": "n", "title": one}])
    store.documents.store_document("nodes", "1", tree)
    listed = [summary.version.policy_id for summary in store.documents.list_documents()]
    assert listed == sorted([*ids, "nodes", "versions"])
    for one in ids:
        assert [node.node_id for node in store.documents.get_document(one).nodes] == [one]
        assert store.documents.get_node("versions", "n", version_id=one).title == one
        assert store.documents.get_node("nodes", one).text == f"text of {one}"
        after = [summary.version.policy_id for summary in store.documents.list_documents(after=one)]
        assert after == listed[listed.index(one) + 1 :]
    for one in ids[::2]:
        store.documents.delete_document(one)
    assert store.check().problems == []
    assert len(store.documents.list_documents()) == len(listed) - len(ids[::2])
    store.close()


def accepted(one: str) -> bool:
    with treestore.open_sync("memory://") as store:
        try:
            store.documents.store_document(one, one, [{"node_id": one, "title": one}])
        except treestore.InvalidInput:
            return False
        return True


EDGES = [
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, tzinfo=UTC),
    datetime(1969, 12, 31, tzinfo=UTC),
]


@pytest.mark.parametrize("hours", [-23, -5, 0, 5, 23])
@pytest.mark.parametrize("edge", EDGES)
def test_moments_at_the_edges_are_kept_or_refused_and_never_spoil_a_key(edge: datetime, hours: int) -> None:
    moment = edge.replace(tzinfo=timezone(timedelta(hours=hours)))
    answers = []
    for store in (
        TreeStore(SyncDriver(BtreeBackend.open(STORE, fs=SimulatedDisk()), lambda: moment)),
        treestore.open_sync("memory://", clock=lambda: moment),
    ):
        try:
            store.documents.store_document("p", "1", [{"node_id": "1", "title": ""}], effective_date=moment)
            answers.append([(one.ingested_at, one.effective_date) for one in store.versions.list("p")])
        except treestore.InvalidInput:
            answers.append([])
        assert store.check().problems == []
        store.close()
    assert answers[0] == answers[1]
