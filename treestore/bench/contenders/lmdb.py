"""LMDB by ``lmdb``, as whoever knows it well would use it for trees that do not change in place.

- Nodes lie by an integer key (version's number, then preorder place), which is LMDB's fastest kind of key, encoded by msgspec;
  their texts by the same keys in a database of their own, so an outline never touches them.
- One more database finds a place by a node id. Children, and subtrees of few levels, are walked in place: past a node at the
  limit the cursor jumps behind its last descendant.
- Values are decoded from LMDB's own memory (``buffers=True``), without a copy. A question is a read transaction of its own.
- One write transaction for a document, appended in the order of the keys, synced (``sync=True``).

It has neither keyword search nor an index of intervals: those questions are not asked of it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import lmdb
import msgspec

from treestore.bench.contender import LEVELS, TASKS, Contender, Place, Verb
from treestore.bench.corpus import HISTORY, POLICY, VERSION, PlainNode, PlainVersion, Tree

MAP_SIZE = 8 << 30
"""Of the address space; on the disk it takes what it holds."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PlainNode).decode
_decode_version = msgspec.msgpack.Decoder(PlainVersion).decode


class Lmdb(Contender):
    """One environment. Versions' numbers are kept at hand, so no question about nodes looks them up."""

    name = "LMDB"

    def __init__(self, place: Place) -> None:
        self._environment = lmdb.open(str(place.folder), map_size=MAP_SIZE, max_dbs=4, max_readers=2 * TASKS, sync=True)
        self._nodes = self._environment.open_db(b"nodes", integerkey=True)
        self._texts = self._environment.open_db(b"texts", integerkey=True)
        self._ids = self._environment.open_db(b"ids")
        self._versions = self._environment.open_db(b"versions")
        self._numbers: dict[tuple[str, str], int] = {}
        with self._environment.begin(db=self._versions) as reading:
            for key, value in reading.cursor():
                version = _decode_version(value)
                self._numbers[version.policy_id, version.version_id] = int.from_bytes(key[-4:])
        self._threads = ThreadPoolExecutor(TASKS)
        self.verbs: Mapping[str, Verb] = {
            "store": self._store,
            "store_small": self._store,
            "store_equal": self._store_equal,
            "store_together": lambda trees: sum(word == "created" for word in self._threads.map(self._store, trees)),
            "node": lambda node_id: self._node(node_id, texts=True),
            "node_outline": lambda node_id: [self._node(node_id, texts=False)],
            "children": lambda node_id: self._subtree(node_id, 1, texts=True)[1:],
            "children_outline": lambda node_id: self._subtree(node_id, 1, texts=False),
            "subtree": lambda node_id: self._subtree(node_id, LEVELS, texts=True),
            "subtree_outline": lambda node_id: self._subtree(node_id, LEVELS, texts=False),
            "whole": self._whole,
            "whole_outline": self._whole_outline,
            "ancestors": self._ancestors,
            "as_of": self._as_of,
        }

    def close(self) -> None:
        self._threads.shutdown()
        self._environment.close()

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def settle(self) -> None:
        """There is nothing to be done."""

    # --- writing ---------------------------------------------------------------------------------------------------------

    def _store(self, tree: Tree) -> str:
        version = tree.version
        with self._environment.begin(write=True) as writing:
            number = len(self._numbers)  # under LMDB's lock of the one writer
            self._numbers[version.policy_id, version.version_id] = number
            in_time = f"{version.policy_id}\0{version.effective_date.isoformat()}\0".encode() + number.to_bytes(4)
            writing.put(in_time, _encode(version), db=self._versions)
            rows = [(_key(number, node.ordinal), node) for node in tree.nodes]
            with writing.cursor(self._nodes) as nodes, writing.cursor(self._texts) as texts:
                nodes.putmulti([(key, _outline(node)) for key, node in rows], append=True)
                texts.putmulti([(key, node.text.encode()) for key, node in rows if node.text is not None], append=True)
            with writing.cursor(self._ids) as ids:
                start = number.to_bytes(4)
                ids.putmulti([(start + node.node_id.encode(), node.ordinal.to_bytes(4)) for node in tree.nodes])
        return "created"

    def _store_equal(self, tree: Tree) -> str:
        """Every value is compared with the one that is there; only what differs would be written."""
        number = self._numbers[tree.version.policy_id, tree.version.version_id]
        changed = 0
        with self._environment.begin(write=True) as writing:
            for node in tree.nodes:
                key = _key(number, node.ordinal)
                text = None if node.text is None else node.text.encode()
                for database, value in ((self._nodes, _outline(node)), (self._texts, text)):
                    if value is not None and writing.get(key, db=database) != value:
                        writing.put(key, value, db=database)
                        changed += 1
        return "replaced" if changed else "unchanged"

    # --- asking ----------------------------------------------------------------------------------------------------------

    def _node(self, node_id: str, *, texts: bool) -> PlainNode:
        number = self._numbers[POLICY, VERSION]
        with self._environment.begin(buffers=True) as reading:
            key = _key(number, self._ordinal(reading, number, node_id))
            node = _decode(reading.get(key, b"", db=self._nodes))
            if texts:
                _add_text(node, reading.get(key, db=self._texts))
        return node

    def _ordinal(self, reading: lmdb.Transaction, number: int, node_id: str) -> int:
        return int.from_bytes(reading.get(number.to_bytes(4) + node_id.encode(), b"", db=self._ids))

    def _subtree(self, node_id: str, levels: int, *, texts: bool) -> list[PlainNode]:
        number = self._numbers[POLICY, VERSION]
        found: list[PlainNode] = []
        with self._environment.begin(buffers=True) as reading:
            cursor = reading.cursor(self._nodes)
            cursor.set_key(_key(number, self._ordinal(reading, number, node_id)))
            top = _decode(cursor.value())
            limit, last, node = top.depth + levels, top.last_ordinal, top
            while True:
                found.append(node)
                following = node.ordinal + 1 if node.depth < limit else node.last_ordinal + 1
                if following > last:
                    break
                if following == node.ordinal + 1:
                    cursor.next()
                else:
                    cursor.set_key(_key(number, following))
                node = _decode(cursor.value())
            if texts:
                get, database = reading.get, self._texts
                for node in found:
                    _add_text(node, get(_key(number, node.ordinal), db=database))
        return found

    def _whole(self, version_id: str) -> list[PlainNode]:
        number = self._numbers[POLICY, version_id]
        with self._environment.begin(buffers=True) as reading:
            nodes = self._outline(reading, number)
            texts = reading.cursor(self._texts)
            texts.set_range(_key(number, 0))
            end = number + 1 << 32
            for key, text in texts:
                place = int.from_bytes(key, sys.byteorder)
                if place >= end:
                    break
                nodes[place - (number << 32)].text = str(text, "utf-8")
        return nodes

    def _whole_outline(self, version_id: str) -> list[PlainNode]:
        with self._environment.begin(buffers=True) as reading:
            return self._outline(reading, self._numbers[POLICY, version_id])

    def _outline(self, reading: lmdb.Transaction, number: int) -> list[PlainNode]:
        cursor = reading.cursor(self._nodes)
        cursor.set_key(_key(number, 0))
        nodes = [_decode(cursor.value())]
        values = cursor.iternext(keys=False)
        next(values)
        nodes += [_decode(value) for value in itertools.islice(values, nodes[0].last_ordinal)]
        return nodes

    def _ancestors(self, node_id: str) -> list[PlainNode]:
        number = self._numbers[POLICY, VERSION]
        way: list[PlainNode] = []
        with self._environment.begin(buffers=True) as reading:
            ordinal = self._ordinal(reading, number, node_id)
            while ordinal >= 0:
                key = _key(number, ordinal)
                node = _decode(reading.get(key, b"", db=self._nodes))
                _add_text(node, reading.get(key, db=self._texts))
                way.append(node)
                ordinal = node.parent_ordinal
        way.reverse()
        return way

    def _as_of(self, time: datetime) -> PlainVersion:
        with self._environment.begin(buffers=True) as reading:
            cursor = reading.cursor(self._versions)
            if not cursor.set_range(f"{HISTORY}\0{time.isoformat()}\1".encode()):
                cursor.last()
            else:
                cursor.prev()
            return _decode_version(cursor.value())


def _key(number: int, ordinal: int) -> bytes:
    return (number << 32 | ordinal).to_bytes(8, sys.byteorder)


def _outline(node: PlainNode) -> bytes:
    """All of a node but its text, which is the last field."""
    return _encode(msgspec.structs.astuple(node)[:-1])


def _add_text(node: PlainNode, text: memoryview | None) -> None:
    if text is not None:
        node.text = str(text, "utf-8")
