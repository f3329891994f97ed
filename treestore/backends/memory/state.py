"""All that the store in memory holds: the rows of plain tables, and the nodes and page texts of each version.

Records are copied on the way in and on the way out where they hold JSON, which is not immutable
(:func:`treestore.trees.content.detached`), so that nobody outside can change what is stored.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import msgspec

from treestore.catalog import TABLES, Table
from treestore.errors import InvalidInput
from treestore.operations import VersionRef
from treestore.records import Node, PageText, Version
from treestore.trees import timeline
from treestore.trees.content import Content, detached

Key = tuple[Any, ...]


class Rows:
    """The records of one plain table, by primary key; and in order: the keys, and each index's entries.

    An index entry is the index's fields followed by the primary key.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.records: dict[Key, Any] = {}
        self.keys: list[Key] = []
        self.indexes: dict[str, list[Key]] = {name: [] for name in table.indexes}

    def copy(self) -> Rows:
        """The same rows, to be changed apart from these."""
        other = Rows(self.table)
        other.records = dict(self.records)
        other.keys = list(self.keys)
        other.indexes = {name: list(entries) for name, entries in self.indexes.items()}
        return other

    def put(self, record: msgspec.Struct) -> None:
        key = self.table.key_of(record)
        self.delete(key)
        self.records[key] = detached(record)
        insort(self.keys, key)
        for name, entries in self.indexes.items():
            insort(entries, self._entry(name, record))

    def delete(self, key: Key) -> None:
        record = self.records.pop(key, None)
        if record is not None:
            self.keys.remove(key)
            for name, entries in self.indexes.items():
                entries.remove(self._entry(name, record))

    def under(self, prefix: Key) -> list[Key]:
        """The primary keys that begin with ``prefix``, in order."""
        return _beginning_with(prefix, self.keys)

    def under_index(self, name: str, prefix: Key) -> list[Key]:
        """The primary keys whose entry in an index begins with ``prefix``, in the order of the index."""
        return [entry[-len(self.table.key) :] for entry in _beginning_with(prefix, self.indexes[name])]

    def _entry(self, name: str, record: msgspec.Struct) -> Key:
        return tuple(getattr(record, column) for column in self.table.indexes[name]) + self.table.key_of(record)

    def problems(self) -> list[str]:
        """What is wrong with the order of the keys or with the indexes, one line each."""
        found = []
        if self.keys != sorted(self.records):
            found.append(f"{self.table.name}: the keys in order are not those of the records")
        for name, entries in self.indexes.items():
            if entries != sorted(self._entry(name, record) for record in self.records.values()):
                found.append(f"{self.table.name}: index {name} does not have one entry for each record")
        return found


def _beginning_with(prefix: Key, ordered: list[Key]) -> list[Key]:
    """The tuples that begin with ``prefix`` in a list of tuples in order: they stand together."""
    first = last = bisect_left(ordered, prefix)
    while last < len(ordered) and ordered[last][: len(prefix)] == prefix:
        last += 1
    return ordered[first:last]


class State:
    """All that the store holds at one moment."""

    def __init__(self, rows: dict[type[msgspec.Struct], Rows], contents: dict[tuple[str, str], Content]) -> None:
        self.rows = rows
        self.contents = contents

    @classmethod
    def empty(cls) -> State:
        return cls({record: Rows(table) for record, table in TABLES.items() if record not in (Node, PageText)}, {})

    def copy(self) -> State:
        return State({record: rows.copy() for record, rows in self.rows.items()}, dict(self.contents))

    def plain(self, record: type[msgspec.Struct]) -> Rows:
        """The rows of a plain table. Raises InvalidInput for a record that has none."""
        if record not in self.rows:
            raise InvalidInput(f"{record.__name__} is not the record of a plain table")
        return self.rows[record]

    def record(self, record: type[msgspec.Struct], key: Key) -> msgspec.Struct | None:
        """One record of a plain table by its primary key, as stored."""
        return self.plain(record).records.get(key)

    def versions_of(self, policy_id: str) -> list[Version]:
        """All versions of a policy, tombstones too, by version id."""
        rows = self.rows[Version]
        return [rows.records[key] for key in rows.under((policy_id,))]

    def find(self, policy_id: str, ref: VersionRef) -> tuple[Version, Content]:
        """The version that is meant, and what it holds. Raises NotFound."""
        version = timeline.resolve(policy_id, self.versions_of(policy_id), ref)
        return version, self.contents[policy_id, version.version_id]
