"""Whole trees that are laid out before their group is committed: in short steps, and what is new, if it is much, in bulk."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator

from treestore.backends.btree.content import NewContent, read_head
from treestore.backends.btree.engine.bulk import Bulk
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.tree import Graft
from treestore.backends.btree.keyspace import Head, encode
from treestore.backends.btree.overlay import Entry, Overlay
from treestore.backends.btree.writes import Numbers, lay_out, link
from treestore.errors import OutcomeUnknown
from treestore.operations import Applied, ReplaceVersion, WriteGroup

BULK_BYTES = 1024 * 1024  # a tree above this is laid out before its group is committed
_LOGGED = 64  # where a tree's new entries are more than this part of it, they are loaded in bulk, not written to the log
_NODE_BYTES = 250  # about what a node takes beside its strings


class Overtaken(Exception):
    """The policy changed, or the data file was rewritten, while a bulk load was written."""


class Staged:
    """A tree that was laid out and waits to be linked: ``grafts`` were loaded in bulk, ``puts`` are few. ``head`` is the
    policy's head that it was laid out for."""

    def __init__(self, bulk: Bulk, new: NewContent, head: Head | None) -> None:
        self.bulk = bulk
        self.new = new
        self.head = head
        self.grafts: list[tuple[int, Graft]] = []
        self.puts: list[tuple[int, list[Entry]]] = []

    def load(self) -> Generator[None, None, None]:
        """Write the new entries to the data file, tree by tree, but where they are few. Pauses now and then."""
        for tree, entries in self.new.families():
            few = yield from _first(entries, BULK_BYTES // _LOGGED)
            following = next(entries, None)
            if following is None:
                self.puts.append((tree, few))
                continue
            made = yield from self.bulk.load(itertools.chain(few, (following,), entries))
            assert made is not None
            self.grafts.append((tree, made))

    def sync(self) -> None:
        """Make what was loaded durable."""
        if self.grafts:
            self.bulk.sync()

    def link(self, view: Overlay) -> None:
        """Link a tree that was laid out, unless it was overtaken."""
        if self.bulk.pager is not view.state.pager or read_head(view, self.new.version.policy_id) != self.head:
            raise Overtaken
        link(view, self.new)
        for tree, made in self.grafts:
            view.graft(tree, made)
        for tree, entries in self.puts:
            view.put_all(tree, entries)

    def linked(self, group: WriteGroup, repeated: list[bool]) -> Applied:
        """The answer to a group that is durable; one that was repeated has not linked what it loaded."""
        if repeated:
            self.bulk.abandon()
        return Applied(group.group_id, repeated=bool(repeated))

    def abandon_after(self, error: Exception) -> None:
        """Give a bulk load's pages back, unless a log record that refers to them may be durable."""
        if not isinstance(error, OutcomeUnknown):
            self.bulk.abandon()


def stage(engine: Engine, group: WriteGroup, state: State, numbers: Numbers) -> Generator[None, None, Staged]:
    """Lay the group's tree out, for the policy as it is in a state, and load what is new of it."""
    [write] = group.writes
    assert isinstance(write, ReplaceVersion)
    view = Overlay(state)
    head = read_head(view, write.version.policy_id)
    new = yield from lay_out(view, write, numbers)
    staged = Staged(engine.bulk(), new, head)
    try:
        yield from staged.load()
    except BaseException:
        staged.bulk.abandon()
        raise
    return staged


def is_large(group: WriteGroup) -> bool:
    """Whether the group is one whole tree that is laid out before it is committed."""
    if len(group.writes) != 1 or not isinstance(group.writes[0], ReplaceVersion):
        return False
    write = group.writes[0]
    size = sum(len(page.content) for page in write.pages)
    for node in write.nodes:
        size += _NODE_BYTES + len(node.title) + len(node.summary or "") + len(node.text or "") + len(node.prefix_summary or "")
        if node.metadata or node.extra:
            size += len(encode((node.metadata, node.extra)))
        if size >= BULK_BYTES:
            return True
    return size >= BULK_BYTES


def _first(entries: Iterator[Entry], most: int) -> Generator[None, None, list[Entry]]:
    """The first entries, of so many bytes or a little more. Pauses now and then."""
    found: list[Entry] = []
    size = 0
    for entry in entries:
        found.append(entry)
        size += len(entry[0]) + len(entry[1])
        if size > most:
            break
        if len(found) % 64 == 0:
            yield
    return found
