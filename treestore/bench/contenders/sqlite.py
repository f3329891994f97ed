"""SQLite by Python's own ``sqlite3``, as whoever knows it well would use it for trees that do not change in place.

Chosen by measuring the alternatives on the document of the benchmark (50,000 nodes, warm):

- Rows lie by an integer key (version's number, then preorder place), so that a subtree is one range. Two more indexes: by node
  id, and by (depth, place), which gives children and the levels of a subtree as a few ranges each: 1.7 to 2.1 ms for 585
  nodes, where a recursive query takes 3.1 ms and the range of the whole subtree, filtered, 1.7 to 3.7 ms.
- The way to the root is a recursive query (39 µs), which is faster than a query for each step (50 µs).
- Pages are found in an R*Tree of one dimension (60 µs; by an index on the first page 10 ms). It is filled after the document
  was stored, so the time of storing does not hold it.
- Words are found in an FTS5 table over the rows' own columns, filled by one statement of SQL. It gathers 16 MiB in memory
  before it writes them (by default 1 MiB, which takes 45 µs a node in the place of 21), and its segments are merged
  (``optimize``) before it is asked, and again after nodes were amended (aside: no amendment pays for that). Sorting by
  ``bm25()`` takes 6 ms where ``ORDER BY rank`` takes 9; with ``detail=column``, which is smaller, it takes 50.
- WAL, ``synchronous=FULL``, pages of 8 KiB (faster here than 4), the page cache as large as treestore's, ``ANALYZE`` after
  filling, each statement's text constant so that it is prepared once, one transaction for a document, and a connection that
  is shared under a lock, with all that waits in one transaction, where many threads write.
"""

from __future__ import annotations

import math
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import msgspec

from treestore.bench.contender import ALL, BEST, CACHE_MB, LEVELS, TASKS, Contender, Hit, Place, Scoring, Verb, bm25
from treestore.bench.corpus import HISTORY, POLICY, VERSION, PlainNode, PlainVersion, Tree

PLACES = 1 << 20
"""Above every preorder place, so that (version's number * PLACES + place) is a key in document order."""

SCHEMA = """
CREATE TABLE version (
    number INTEGER PRIMARY KEY, policy_id TEXT, version_id TEXT, effective_date TEXT, node_count INTEGER, description TEXT,
    UNIQUE (policy_id, version_id)
);
CREATE INDEX version_in_time ON version (policy_id, effective_date);
CREATE TABLE node (
    id INTEGER PRIMARY KEY, version INTEGER NOT NULL, node_id TEXT NOT NULL, parent_id TEXT, title TEXT NOT NULL,
    page_start INTEGER, page_end INTEGER, summary TEXT, section_path TEXT NOT NULL, ordinal INTEGER NOT NULL,
    last_ordinal INTEGER NOT NULL, parent_ordinal INTEGER NOT NULL, depth INTEGER NOT NULL, metadata TEXT, text TEXT,
    UNIQUE (version, node_id)
);
CREATE INDEX node_by_depth ON node (version, depth, ordinal);
CREATE VIRTUAL TABLE node_pages USING rtree_i32 (id, page_start, page_end);
CREATE VIRTUAL TABLE node_words USING fts5 (title, summary, text, content='node', content_rowid='id');
INSERT INTO node_words (node_words, rank) VALUES ('hashsize', 16777216);
"""

_FIELDS = PlainNode.__struct_fields__
_NODE = ", ".join(f"n.{name}" for name in _FIELDS)
_OUTLINE = ", ".join(f"n.{name}" for name in _FIELDS if name != "text")
_METADATA = _FIELDS.index("metadata")

_BY_ID = "SELECT {} FROM node n WHERE n.version = ?1 AND n.node_id = ?2"
_CHILDREN = """
SELECT {} FROM node p
JOIN node n ON n.version = ?1 AND n.depth = p.depth + 1 AND n.ordinal BETWEEN p.ordinal AND p.last_ordinal
WHERE p.version = ?1 AND p.node_id = ?2 ORDER BY n.ordinal"""
_LEVELS = """
SELECT {} FROM node n WHERE n.id IN (
    SELECT c.id FROM node p
    JOIN node c ON c.version = ?1 AND c.depth IN ({}) AND c.ordinal BETWEEN p.ordinal AND p.last_ordinal
    WHERE p.version = ?1 AND p.node_id = ?2
) ORDER BY n.id"""
_WHOLE = f"SELECT {{}} FROM node n WHERE n.id BETWEEN ?1 * {PLACES} AND ?1 * {PLACES} + {PLACES - 1} ORDER BY n.id"
_ANCESTORS = f"""
WITH RECURSIVE way (id, parent_ordinal) AS (
    SELECT id, parent_ordinal FROM node WHERE version = ?1 AND node_id = ?2
    UNION ALL
    SELECT n.id, n.parent_ordinal FROM way
    JOIN node n ON n.id = ?1 * {PLACES} + way.parent_ordinal WHERE way.parent_ordinal >= 0
)
SELECT {{}} FROM node n WHERE n.id IN (SELECT id FROM way) ORDER BY n.id"""
_AS_OF = """
SELECT policy_id, version_id, effective_date, node_count, description FROM version
WHERE policy_id = ? AND effective_date <= ? ORDER BY effective_date DESC, number DESC LIMIT 1"""
_ON_PAGE = f"""
SELECT {{}} FROM node n WHERE n.id IN (
    SELECT id FROM node_pages
    WHERE page_start <= ?2 AND page_end >= ?2 AND id BETWEEN ?1 * {PLACES} AND ?1 * {PLACES} + {PLACES - 1}
) ORDER BY n.id"""
_SEARCH = f"""
SELECT {_NODE}, -best.score FROM (
    SELECT rowid AS id, bm25(node_words) AS score FROM node_words
    WHERE node_words MATCH ?2 AND rowid BETWEEN ?1 * {PLACES} AND ?1 * {PLACES} + {PLACES - 1} ORDER BY score LIMIT ?3
) best JOIN node n ON n.id = best.id ORDER BY best.score, n.id"""
_INSERT_VERSION = """
INSERT INTO version (policy_id, version_id, effective_date, node_count, description) VALUES (?, ?, ?, ?, ?)"""
_INSERT = f"INSERT INTO node (id, version, {', '.join(_FIELDS)}) VALUES (?, ?{', ?' * len(_FIELDS)})"
_UPSERT = f"""{_INSERT} ON CONFLICT (id) DO UPDATE SET ({', '.join(_FIELDS)}) = ({', '.join(f'excluded.{x}' for x in _FIELDS)})
WHERE ({', '.join(_FIELDS)}) IS NOT ({', '.join(f'excluded.{x}' for x in _FIELDS)})"""
_INDEX_WORDS = f"""
INSERT INTO node_words (rowid, title, summary, text)
SELECT id, title, summary, text FROM node WHERE id BETWEEN ?1 * {PLACES} AND ?1 * {PLACES} + {PLACES - 1}"""

_AMEND = (
    """
INSERT INTO node_words (node_words, rowid, title, summary, text)
SELECT 'delete', id, title, summary, text FROM node WHERE version = ?1 AND node_id = ?2""",
    "UPDATE node SET text = ?3 WHERE version = ?1 AND node_id = ?2",
    """
INSERT INTO node_words (rowid, title, summary, text)
SELECT id, title, summary, text FROM node WHERE version = ?1 AND node_id = ?2""",
)
_DELETE = (
    f"DELETE FROM node WHERE id BETWEEN ?1 * {PLACES} AND ?1 * {PLACES} + {PLACES - 1}",
    "DELETE FROM version WHERE number = ?1",
)
_INDEX_PAGES = "INSERT INTO node_pages SELECT id, page_start, page_end FROM node WHERE version = ?"

R = TypeVar("R")


def _weight(nodes: int, found: int) -> float:
    """FTS5's: the classic one, which is near 0 for a word that half of the nodes say, and never below."""
    return max(math.log((nodes - found + 0.5) / (found + 0.5)), 1e-6)


class Sqlite(Contender):
    """One connection. Versions' numbers are kept at hand, so no question about nodes looks them up."""

    name = "SQLite"
    scoring = Scoring(bm25(_weight), 2)

    def __init__(self, place: Place) -> None:
        self._connection = sqlite3.connect(
            place.folder / "database", isolation_level=None, cached_statements=256, check_same_thread=False
        )
        for setting in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL", f"cache_size=-{CACHE_MB * 1000}"):
            self._connection.execute(f"PRAGMA {setting}")
        if not self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            self._connection.executescript(SCHEMA)
        versions = self._connection.execute("SELECT policy_id, version_id, number FROM version")
        self._numbers: dict[tuple[str, str], int] = {(policy, version): number for policy, version, number in versions}
        self._threads = ThreadPoolExecutor(TASKS)
        self.gathering = Gathering(self.in_transaction)
        self.verbs: Mapping[str, Verb] = {
            "store": self._store,
            "store_small": self._store,
            "store_searchable": self._store_searchable,
            "store_equal": self._store_equal,
            "store_together": lambda trees: sum(word == "created" for word in self._threads.map(self._store_gathered, trees)),
            "node": self._asking_one(_BY_ID.format(_NODE)),
            "node_outline": self._asking(_BY_ID.format(_OUTLINE)),
            "children": self._asking(_CHILDREN.format(_NODE)),
            "children_outline": self._asking(_LEVELS.format(_OUTLINE, _depths(1))),
            "subtree": self._asking(_LEVELS.format(_NODE, _depths(LEVELS))),
            "subtree_outline": self._asking(_LEVELS.format(_OUTLINE, _depths(LEVELS))),
            "whole": self._asking_all(_WHOLE.format(_NODE)),
            "whole_outline": self._asking_all(_WHOLE.format(_OUTLINE)),
            "ancestors": self._asking(_ANCESTORS.format(_NODE)),
            "as_of": self._as_of,
            "on_page": self._asking(_ON_PAGE.format(_NODE)),
            "search": lambda words: self._search(words, BEST),
            "search_all": lambda words: self._search(words, ALL),
            "amend": self._amend,
        }

    def close(self) -> None:
        self._threads.shutdown()
        self.gathering.close()
        self._connection.close()

    def prepare(self) -> None:
        self.in_transaction(lambda: self._connection.execute(_INDEX_PAGES, self._main))
        self.settle()

    def settle(self) -> None:
        self._connection.execute("INSERT INTO node_words (node_words) VALUES ('optimize')")
        self._connection.execute("ANALYZE")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def _main(self) -> tuple[int]:
        return (self._numbers[POLICY, VERSION],)

    # --- writing ---------------------------------------------------------------------------------------------------------

    def _store(self, tree: Tree) -> str:
        self.in_transaction(lambda: self.insert(tree))
        return "created"

    def _store_searchable(self, tree: Tree) -> str:
        self.in_transaction(lambda: self.insert(tree, searchable=True))
        return "created"

    def _store_gathered(self, tree: Tree) -> str:
        self.gathering.write(lambda: self.insert(tree))
        return "created"

    def in_transaction(self, work: Callable[[], R]) -> R:
        """Do some work in a transaction, which is durable when this returns; by one thread at a time."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return result

    def hold_checkpoints(self) -> None:
        """Let the log grow until closing."""
        self._connection.execute("PRAGMA wal_autocheckpoint=0")

    def insert(self, tree: Tree, *, searchable: bool = False) -> None:
        """Insert a version and its nodes, in a transaction."""
        version = tree.version
        effective = version.effective_date.isoformat()
        row = (version.policy_id, version.version_id, effective, version.node_count, version.description)
        number = self._connection.execute(_INSERT_VERSION, row).lastrowid
        assert number is not None
        self._connection.executemany(_INSERT, _rows(number, tree.nodes))
        self._numbers[version.policy_id, version.version_id] = number
        if searchable:
            self._connection.execute(_INDEX_WORDS, (number,))

    def amend(self, policy_id: str, version_id: str, node_id: str, text: str, *, searchable: bool = True) -> None:
        """Give a node another text, in a transaction. An index over rows that lie elsewhere is told what they said before;
        only then may they say something else."""
        values = (self._numbers[policy_id, version_id], node_id)
        forget, change, learn = _AMEND
        if searchable:
            self._connection.execute(forget, values)
        self._connection.execute(change, (*values, text))
        if searchable:
            self._connection.execute(learn, values)

    def delete(self, policy_id: str, version_id: str) -> None:
        """Delete a version that is not searchable with its nodes, in a transaction."""
        number = (self._numbers.pop((policy_id, version_id)),)
        for statement in _DELETE:
            self._connection.execute(statement, number)

    def _store_equal(self, tree: Tree) -> str:
        """Every row is compared with the one that is there; only what differs would be written."""
        number = self._numbers[tree.version.policy_id, tree.version.version_id]
        rows = _rows(number, tree.nodes)
        changed = self.in_transaction(lambda: self._connection.executemany(_UPSERT, rows)).rowcount
        return "replaced" if changed else "unchanged"

    def _amend(self, asked: tuple[str, str]) -> None:
        self.in_transaction(lambda: self.amend(POLICY, VERSION, *asked))

    # --- asking ----------------------------------------------------------------------------------------------------------

    def _asking_one(self, sql: str) -> Verb:
        execute = self._connection.execute
        return lambda node_id: _node(execute(sql, (self._numbers[POLICY, VERSION], node_id)).fetchone())

    def _asking(self, sql: str) -> Verb:
        execute = self._connection.execute
        return lambda asked: [_node(row) for row in execute(sql, (self._numbers[POLICY, VERSION], asked))]

    def _asking_all(self, sql: str) -> Verb:
        execute = self._connection.execute
        return lambda version_id: [_node(row) for row in execute(sql, (self._numbers[POLICY, version_id],))]

    def _as_of(self, time: datetime) -> PlainVersion:
        policy, version, effective, *rest = self._connection.execute(_AS_OF, (HISTORY, time.isoformat())).fetchone()
        return PlainVersion(policy, version, datetime.fromisoformat(effective), *rest)

    def _search(self, words: tuple[str, ...], limit: int) -> list[Hit]:
        query = " OR ".join(f'"{word}"' for word in words)
        found = self._connection.execute(_SEARCH, (*self._main, query, limit))
        return [Hit(_node(row[:-1]), row[-1]) for row in found]


def _depths(levels: int) -> str:
    return ", ".join(f"p.depth + {level}" for level in range(levels + 1))


def _rows(number: int, nodes: Sequence[PlainNode]) -> Iterable[tuple[Any, ...]]:
    first, encode = number * PLACES, msgspec.json.encode
    for node in nodes:
        metadata = None if node.metadata is None else encode(node.metadata).decode()
        yield (
            first + node.ordinal,
            number,
            node.node_id,
            node.parent_id,
            node.title,
            node.page_start,
            node.page_end,
            node.summary,
            node.section_path,
            node.ordinal,
            node.last_ordinal,
            node.parent_ordinal,
            node.depth,
            metadata,
            node.text,
        )


def _node(row: Sequence[Any]) -> PlainNode:
    node = PlainNode(*row)
    if row[_METADATA] is not None:
        node.metadata = msgspec.json.decode(row[_METADATA])
    return node


class Gathering:
    """One thread that does what many give it: all that waits, in one transaction."""

    def __init__(self, in_transaction: Callable[[Callable[[], object]], object]) -> None:
        self._in_transaction = in_transaction
        self._waiting: queue.SimpleQueue[tuple[Callable[[], object], Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def write(self, work: Callable[[], object]) -> None:
        """Returns when the work is done and durable."""
        done: Future[None] = Future()
        self._waiting.put((work, done))
        done.result()

    def close(self) -> None:
        """Wait for what is under way, and let the thread end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while not self._waiting.empty() and (further := self._waiting.get()) is not None:
                batch.append(further)
            works = [work for work, _ in batch]
            try:
                self._in_transaction(partial(_do_all, works))
            except Exception as error:
                for _, done in batch:
                    done.set_exception(error)
            else:
                for _, done in batch:
                    done.set_result(None)


def _do_all(works: Sequence[Callable[[], object]]) -> None:
    for work in works:
        work()
