"""Write groups resolved to changes of the engine's trees.

A group is resolved against the newest state, inside its commit: the overlay shows the state with what earlier writes of the
group have done, and collects it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable
from typing import Any

import msgspec

from treestore.backends.btree.amending import amend
from treestore.backends.btree.content import Base, NewContent, drop_content, find_base, live_layout, read_head
from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import (
    ANALYZER,
    COUNTERS,
    GENERATION,
    GROUPS,
    HEADS,
    MAX_NUMBER,
    NEXT_CONTENT,
    NEXT_POLICY,
    Head,
    decode,
    encode,
    index_key,
    number_key,
)
from treestore.backends.btree.overlay import Overlay
from treestore.backends.btree.reads import family_of
from treestore.catalog import TABLES
from treestore.errors import Conflict, Unavailable
from treestore.operations import (
    AmendNodes,
    Delete,
    DeleteRange,
    DropVersion,
    Expectation,
    Put,
    ReplaceVersion,
    Write,
    unmet,
)
from treestore.records import Version

GROUP_IDS_KEPT_SECONDS = 3600


def check_expectations(view: Overlay, expectations: Iterable[Expectation]) -> None:
    """Raise Conflict for the first expectation that does not hold."""

    def get(record: type[msgspec.Struct], key: tuple[Any, ...]) -> msgspec.Struct | None:
        raw = view.get(family_of(record).tree, keycode.encode(key))
        found: msgspec.Struct | None = None if raw is None else decode(record, raw)
        return found

    def any_under(record: type[msgspec.Struct], prefix: tuple[Any, ...]) -> bool:
        return bool(view.scan(family_of(record).tree, *keycode.prefix_range(prefix)))

    for expects in expectations:
        reason = unmet(expects, get, any_under)
        if reason is not None:
            raise Conflict(reason)


def remember(view: Overlay, group_id: bytes) -> bool:
    """Note a group's id; False if it is there already.

    Ids are kept by generations, of which a new one begins after an hour; the one before is kept beside it.
    """
    raw = view.get(COUNTERS, GENERATION)
    generation, began = (int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")) if raw else (1, 0)
    key = number_key(generation, group_id)
    if view.get(GROUPS, key) is not None or (
        generation > 1 and view.get(GROUPS, number_key(generation - 1, group_id)) is not None
    ):
        return False
    now = int(time.time())
    if not 0 <= now - began < GROUP_IDS_KEPT_SECONDS:  # also where the clock went back
        view.delete_range(GROUPS, b"", number_key(generation) if generation < MAX_NUMBER else None)
        generation = generation + 1 if generation < MAX_NUMBER else 1
        key = number_key(generation, group_id)
        view.put(COUNTERS, GENERATION, generation.to_bytes(8, "big") + max(now, 0).to_bytes(8, "big"))
    view.put(GROUPS, key, b"")
    return True


class Numbers:
    """Numbers of policies and contents, each given once: from the newest state's counters, or beyond what was given and is
    not committed yet."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def take(self, state: State, counter: bytes) -> int:
        """The next number. Raises Unavailable where there is none left."""
        raw = state.get(COUNTERS, counter)
        with self._lock:
            number = max(self._next.get(counter, 1), int.from_bytes(raw, "big") if raw else 1)
            if number > MAX_NUMBER:
                raise Unavailable(f"the store has given out all its {counter.decode()} numbers; copy it to a new one")
            self._next[counter] = number + 1
        return number


def _take(view: Overlay, numbers: Numbers, counter: bytes) -> int:
    """The next number, given with the group."""
    number = numbers.take(view.state, counter)
    _note(view, counter, number)
    return number


def _note(view: Overlay, counter: bytes, number: int) -> None:
    """Make it durable with the group that this number was given."""
    raw = view.get(COUNTERS, counter)
    if raw is None or int.from_bytes(raw, "big") <= number:
        view.put(COUNTERS, counter, (number + 1).to_bytes(8, "big"))


def apply(view: Overlay, write: Write, numbers: Numbers) -> None:
    """One write. Raises InvalidInput, NotFound, Unavailable; the overlay is not to be used then."""
    match write:
        case Put(record):
            put_record(view, record)
        case Delete(record, key):
            _delete(view, record, keycode.encode(key))
        case DeleteRange(record, prefix):
            for raw, _ in view.scan(family_of(record).tree, *keycode.prefix_range(prefix)):
                _delete(view, record, raw)
        case ReplaceVersion():
            new = finished(lay_out(view, write, numbers))
            link(view, new)
            for tree, entries in new.families():
                view.put_all(tree, entries)
        case AmendNodes():
            amend(view, write, lambda: _take(view, numbers, NEXT_CONTENT))
            put_record(view, write.version)
        case DropVersion(version):
            live_layout(view, version)
            drop_content(view, version.policy_id, version.version_id)
            put_record(view, version)


def lay_out(view: Overlay, write: ReplaceVersion, numbers: Numbers) -> Generator[None, None, NewContent]:
    """The content of a version with its numbers, not yet written anywhere. Pauses now and then."""
    head = read_head(view, write.version.policy_id)
    if head is None:
        head = Head(numbers.take(view.state, NEXT_POLICY))
        base = Base(view, head.number, None, len(write.nodes))
    else:
        base = yield from find_base(view, head, write)
    new = NewContent(write, head, numbers.take(view.state, NEXT_CONTENT), base)
    yield from new.lay_out()
    return new


def link(view: Overlay, new: NewContent) -> None:
    """Put the version's facts and let the new content take the place of the old one. The policy's head is the one that it was
    laid out for."""
    new.link(view)
    _note(view, NEXT_POLICY, new.head.number)
    _note(view, NEXT_CONTENT, new.content)
    _put_row(view, new.version)


def _delete(view: Overlay, record: type[msgspec.Struct], key: bytes) -> None:
    if record is Version:
        drop_content(view, *keycode.decode(key))
    delete_record(view, record, key)


# --- records and heads ---------------------------------------------------------------------------------------------------


def _changed(view: Overlay, policy_id: str) -> None:
    """Something of the policy changes: rewrite its head, so that nobody goes on with what was read before."""
    head = read_head(view, policy_id)
    if head is not None:
        view.put(HEADS, policy_id.encode(), encode(msgspec.structs.replace(head, changes=head.changes + 1)))


def put_record(view: Overlay, record: msgspec.Struct) -> None:
    """Insert or replace a record of a plain table with its index entries."""
    _put_row(view, record)
    if isinstance(record, Version):
        _changed(view, record.policy_id)


def _put_row(view: Overlay, record: msgspec.Struct) -> None:
    family, table = family_of(type(record)), TABLES[type(record)]
    key = keycode.encode(table.key_of(record))
    _delete_row(view, type(record), key)
    view.put(family.tree, key, encode(record))
    for name, tree in family.indexes.items():
        view.put(tree, index_key(table, name, record), b"")
    if isinstance(record, Version):
        _count_analyzer(view, record, 1)


def delete_record(view: Overlay, record: type[msgspec.Struct], key: bytes) -> None:
    """Delete a record of a plain table, if it is there, with its index entries."""
    old = _delete_row(view, record, key)
    if isinstance(old, Version):
        _changed(view, old.policy_id)


def _delete_row(view: Overlay, record: type[msgspec.Struct], key: bytes) -> msgspec.Struct | None:
    """The record that was there."""
    family, table = family_of(record), TABLES[record]
    raw = view.get(family.tree, key)
    if raw is None:
        return None
    old: msgspec.Struct = decode(record, raw)
    view.delete(family.tree, key)
    for name, tree in family.indexes.items():
        view.delete(tree, index_key(table, name, old))
    if isinstance(old, Version):
        _count_analyzer(view, old, -1)
    return old


def _count_analyzer(view: Overlay, version: Version, step: int) -> None:
    """One version more, or less, has postings that its analyzer made."""
    if not version.analyzer:
        return
    counter = ANALYZER + version.analyzer.encode()
    count = int.from_bytes(view.get(COUNTERS, counter) or b"", "big") + step
    if count > 0:
        view.put(COUNTERS, counter, count.to_bytes(8, "big"))
    else:
        view.delete(COUNTERS, counter)
