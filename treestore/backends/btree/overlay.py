"""A state of the engine with a group's changes on top, while the group is resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treestore.backends.btree.engine.format import MAX_KEY
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.tree import Graft
from treestore.errors import InvalidInput

Entry = tuple[bytes, bytes]


class Overlay:
    """A state as a group sees it that has changed some of it already. ``amended``: the ordinals of nodes that it has replaced
    in contents that stay, by content number."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.amended: dict[int, set[int]] = {}
        self._puts: dict[int, dict[bytes, bytes | None]] = {}
        self._ranges: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self._grafts: dict[int, list[Graft]] = {}

    def get(self, tree: int, key: bytes) -> bytes | None:
        """The value of a key now."""
        puts = self._puts.get(tree)
        if puts is not None and key in puts:
            return puts[key]
        return None if self._ranges and self._deleted(tree, key) else self.state.get(tree, key)

    def _deleted(self, tree: int, key: bytes) -> bool:
        return any(low <= key and (high is None or key < high) for low, high in self._ranges.get(tree, ()))

    def entries(self, tree: int, low: bytes, high: bytes | None) -> Iterator[Entry]:
        """As :meth:`scan`, one by one where the group has not changed the tree."""
        if tree in self._puts or tree in self._ranges:
            return iter(self.scan(tree, low, high))
        return self.state.scan(tree, low, high)

    def scan(self, tree: int, low: bytes, high: bytes | None) -> list[Entry]:
        """The entries of a range now, in order. Leaves that are linked by this group are not seen."""
        found = {key: raw for key, raw in self.state.scan(tree, low, high) if not self._deleted(tree, key)}
        for key, value in self._puts.get(tree, {}).items():
            if low <= key and (high is None or key < high):
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        return sorted(found.items())

    def floor(self, tree: int, low: bytes, key: bytes) -> Entry | None:
        """The entry with the greatest key from ``low`` to ``key``, both inclusive, now."""
        if tree not in self._puts and tree not in self._ranges:
            found = self.state.floor(tree, key)
            return found if found is not None and found[0] >= low else None
        puts = self._puts.get(tree, {})
        put = max((changed for changed, value in puts.items() if value is not None and low <= changed <= key), default=None)
        for stored, raw in self.state.scan_back(tree, low, key + b"\0"):
            if put is not None and put >= stored:
                break
            if stored not in puts and not self._deleted(tree, stored):
                return stored, raw
        value = None if put is None else puts[put]
        return None if put is None or value is None else (put, value)

    def put(self, tree: int, key: bytes, value: bytes) -> None:
        """Set a key. Raises InvalidInput for a key too long to be stored."""
        if len(key) > MAX_KEY:
            raise InvalidInput(f"a key of {len(key)} bytes is longer than {MAX_KEY}")
        self._puts.setdefault(tree, {})[key] = value

    def put_all(self, tree: int, entries: Iterable[Entry]) -> None:
        """As :meth:`put`, for each of several keys."""
        new = dict(entries)
        if new:
            longest = max(map(len, new))
            if longest > MAX_KEY:
                raise InvalidInput(f"a key of {longest} bytes is longer than {MAX_KEY}")
            self._puts.setdefault(tree, {}).update(new)

    def delete(self, tree: int, key: bytes) -> None:
        """Remove a key, if it is there."""
        self._puts.setdefault(tree, {})[key] = None

    def delete_range(self, tree: int, low: bytes, high: bytes | None) -> None:
        """Remove all keys of a range."""
        puts = self._puts.get(tree, {})
        for key in [key for key in puts if low <= key and (high is None or key < high)]:
            del puts[key]
        self._ranges.setdefault(tree, []).append((low, high))

    def graft(self, tree: int, new: Graft) -> None:
        """Link leaves that a bulk load wrote."""
        self._grafts.setdefault(tree, []).append(new)

    def changes(self) -> list[TreeChange]:
        """All of it, for the engine."""
        found = []
        for tree in sorted(self._puts.keys() | self._ranges.keys() | self._grafts.keys()):
            puts = self._puts.get(tree, {})
            keys = sorted(puts)
            values = list(map(puts.__getitem__, keys))
            found.append(TreeChange(tree, keys, values, self._ranges.get(tree, []), self._grafts.get(tree, [])))
        return found
