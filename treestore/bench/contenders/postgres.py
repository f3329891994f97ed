"""PostgreSQL by asyncpg, as whoever knows both well would use them on the tables and indexes that treestore has there.

Its rows are the driver's own, with all columns of a node and no records made of them, on a connection that nobody else waits
for, by statements that are prepared once. What it stores is ready-made, down to the hashes: rows as treestore writes them, so
the time is that of a bare COPY. Chosen by measuring the alternatives on the document of the benchmark (50,000 nodes, warm):

- Statements are planned once (``plan_cache_mode = force_generic_plan``: a node in 33 µs; planned for each question 59), and
  run by one process of the server (a search of two rare words 0.7 ms; by three that have to be started first, 2 to 3 ms).
- A subtree of few levels is a recursive query that carries no more than what leads on, and its rows are put in order here (2.9
  ms for 585 nodes; by the server 3.3; whole rows carried along a third more, as are a query for each level, and the rows at an
  array of their places; the range of the whole subtree, filtered by depth, takes twice as long). The way to the root is one
  by the parents' ordinals (75 µs; by their ids 90).
- Each step of both is a subquery for each row (LATERAL, with the fence OFFSET 0), and the planner is told that a version id
  goes with a policy (CREATE STATISTICS). Without either it believes, once there are many small documents, that a version has
  one row, and reads whole versions: 130 ms for the way to the root without the first, 16 ms for a node without the second.
- The whole tree is read by the index on the ordinals: without an order it takes as long.
- Pages are found in a table of ranges with a GiST index (223 µs; SP-GiST 252, a B-tree on the last page 530, the nodes' own
  columns 23 ms). It is filled after the document was stored, so the time of storing does not hold it.
- Words are found by a GIN index on a table of their own (so that storing without search does not pay for it), filled by one
  statement, with the configuration "simple": no stems, as FTS5. GIN gathers 64 MB before it sorts them in (125 µs a node;
  with the 4 MB of the server's default 206, each row at once 665). What is left to be sorted in is so before it is asked.
- A small document is one statement that inserts its version and its rows (a transaction of several takes longer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any, ClassVar

import asyncpg
import msgspec

import treestore
from treestore import catalog
from treestore.backends.postgres import rows
from treestore.backends.postgres.address import parse
from treestore.bench.contender import ALL, BEST, LEVELS, TASKS, Hit, Place, Scoring, Verb
from treestore.bench.contenders.awaited import Awaited
from treestore.bench.contenders.databases import Database, told
from treestore.bench.contenders.treestores import face
from treestore.bench.corpus import HISTORY, POLICY, VERSION, PlainNode, PlainVersion, Tree
from treestore.config import Settings

POOL = 16
"""Connections for many tasks that store at once."""

SETTINGS = {"plan_cache_mode": "force_generic_plan", "max_parallel_workers_per_gather": "0"}

SCHEMA = """
CREATE TABLE bench_pages (id integer PRIMARY KEY, pages int4range NOT NULL);
CREATE INDEX ON bench_pages USING gist (pages);
CREATE TABLE bench_words (
    id integer PRIMARY KEY, policy_id varchar(100) COLLATE "C" NOT NULL, version_id varchar(50) COLLATE "C" NOT NULL,
    vector tsvector NOT NULL
);
CREATE INDEX bench_words_vector ON bench_words USING gin (vector) WITH (gin_pending_list_limit = 65536);
CREATE STATISTICS bench_versions (dependencies) ON policy_id, version_id FROM policy_nodes;
"""

_WHOLE = rows.columns(treestore.Node)
_NODE = ", ".join(f"n.{name}" for name in _WHOLE)
_OUTLINE = ", ".join(f"n.{name}" for name in _WHOLE if name != "text")
_FIELDS = [(name, catalog.NODES.columns[name].name) for name in PlainNode.__struct_fields__]

_OF_VERSION = "{0}.policy_id = $1 AND {0}.version_id = $2"
_N, _P = _OF_VERSION.format("n"), _OF_VERSION.format("p")

_BY_ID = f"SELECT {{}} FROM policy_nodes n WHERE {_N} AND n.node_id = $3"
_CHILDREN = f"SELECT {{}} FROM policy_nodes n WHERE {_N} AND n.parent_id = $3 ORDER BY n.ordinal"
_FAMILY = f"""
SELECT {{}} FROM policy_nodes n WHERE {_N} AND n.node_id = $3 UNION ALL
SELECT {{}} FROM policy_nodes n WHERE {_N} AND n.parent_id = $3"""
_LEVELS = f"""
WITH RECURSIVE walk AS (
    SELECT p.id, p.node_id, 0 AS level FROM policy_nodes p WHERE {_P} AND p.node_id = $3
    UNION ALL
    SELECT n.id, n.node_id, w.level + 1 FROM walk w
    CROSS JOIN LATERAL (SELECT * FROM policy_nodes n WHERE {_N} AND n.parent_id = w.node_id OFFSET 0) n WHERE w.level < {{}}
)
SELECT {{}} FROM walk JOIN policy_nodes n USING (id)"""
_RANGE = f"SELECT {{}} FROM policy_nodes n WHERE {_N} ORDER BY n.ordinal"
_ANCESTORS = f"""
WITH RECURSIVE way AS (
    SELECT p.id, p.parent_ordinal FROM policy_nodes p WHERE {_P} AND p.node_id = $3
    UNION ALL
    SELECT n.id, n.parent_ordinal FROM way w
    CROSS JOIN LATERAL (SELECT * FROM policy_nodes n WHERE {_N} AND n.ordinal = w.parent_ordinal OFFSET 0) n
)
SELECT {{}} FROM way JOIN policy_nodes n USING (id)"""
_AS_OF = """
SELECT policy_id, version_id, effective_date, node_count, description FROM policy_versions
WHERE policy_id = $1 AND effective_date <= $2 ORDER BY effective_date DESC LIMIT 1"""
_ON_PAGE = f"""
SELECT {{}} FROM bench_pages g CROSS JOIN LATERAL (SELECT * FROM policy_nodes n WHERE n.id = g.id OFFSET 0) n
WHERE g.pages @> $3::integer AND {_N} ORDER BY n.ordinal"""
_SEARCH = f"""
SELECT {_NODE}, best.score FROM (
    SELECT w.id, ts_rank(w.vector, query) AS score FROM bench_words w, to_tsquery('simple', $3) query
    WHERE w.vector @@ query AND {_OF_VERSION.format("w")} ORDER BY score DESC LIMIT $4
) best JOIN policy_nodes n USING (id) ORDER BY best.score DESC, n.ordinal"""

_VECTOR = "to_tsvector('simple', concat_ws(' ', title, summary, text))"
_INDEX_WORDS = f"""
INSERT INTO bench_words SELECT id, policy_id, version_id, {_VECTOR} FROM policy_nodes n WHERE {_N} ORDER BY n.ordinal"""
_INDEX_PAGES = f"INSERT INTO bench_pages SELECT id, int4range(page_start, page_end, '[]') FROM policy_nodes n WHERE {_N}"
_AMEND = f"""
WITH changed AS (UPDATE policy_nodes n SET text = $4 WHERE {_N} AND n.node_id = $3 RETURNING id, title, summary, text)
UPDATE bench_words w SET vector = {_VECTOR} FROM changed WHERE w.id = changed.id"""

_TYPES = {"text": "text", "json": "text", "integer": "integer", "bytes": "bytea", "time": "timestamp"}
_KINDS = {column.name: column.kind for column in (*catalog.NODES.columns.values(), *catalog.NODES.beside)}
_VERSION_COLUMNS = rows.columns(treestore.Version)


def _inserting() -> str:
    """A statement that inserts a version and its nodes, these as an array for each column."""
    of_version = ", ".join(f"${at}" for at in range(1, len(_VERSION_COLUMNS) + 1))
    arrays = (f"${at}::{_TYPES[_KINDS[name]]}[]" for at, name in enumerate(rows.NODE_COLUMNS, len(_VERSION_COLUMNS) + 1))
    return f"""
WITH version AS (INSERT INTO policy_versions ({', '.join(_VERSION_COLUMNS)}) VALUES ({of_version}))
INSERT INTO policy_nodes ({', '.join(rows.NODE_COLUMNS)}) SELECT * FROM unnest({', '.join(arrays)})"""


_INSERT_VERSION = f"""
INSERT INTO policy_versions ({', '.join(_VERSION_COLUMNS)})
VALUES ({', '.join(f'${at}' for at in range(1, len(_VERSION_COLUMNS) + 1))})"""
_INSERT = _inserting()


def _said_so_often(_: int, __: int, times: int, ___: float) -> float:
    """``ts_rank`` of one word: 0.1 for the first time, less for each further one; how rare it is and how long the node is has
    no weight (``calc_rank_or`` in PostgreSQL's tsrank.c)."""
    return 0.1 * sum(1 / time**2 for time in range(1, times + 1)) / 1.64493406685


_ordinal = itemgetter("ordinal")


class Ready(msgspec.Struct, frozen=True):
    """What is to be stored, as rows: of the version, and of the nodes."""

    version: Sequence[Any]
    nodes: Sequence[Sequence[Any]]


class Postgres(Awaited):
    """Plain SQL on one connection; small documents of many tasks go over a pool."""

    name: ClassVar[str] = "PostgreSQL"
    scoring = Scoring(_said_so_often, 1, 1e-5)  # ts_rank counts in 32 bits

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._database = Database(place)
        try:
            treestore.open_sync(self._database.url).close()
            with told(self._database.url):
                self._loop.run(self._open())
        except BaseException:
            self._database.drop()
            raise

    async def _open(self) -> None:
        arguments = parse(self._database.url, Settings()).asyncpg_arguments()
        arguments |= {"command_timeout": None, "server_settings": SETTINGS}
        self._connection: Any = await asyncpg.connect(**arguments)
        self._pool: Any = await asyncpg.create_pool(**arguments, min_size=0, max_size=POOL)
        await self._connection.execute(SCHEMA)
        prepare = self._connection.prepare
        insert = (await prepare(_INSERT)).fetch
        insert_version = (await prepare(_INSERT_VERSION)).fetch
        index_words = (await prepare(_INDEX_WORDS)).fetch
        amend = (await prepare(_AMEND)).fetch
        as_of = (await prepare(_AS_OF)).fetchrow
        search = (await prepare(_SEARCH)).fetch
        by_id = (await prepare(_BY_ID.format(_NODE))).fetchrow

        async def store(tree: Ready) -> str:
            async with self._connection.transaction():
                await insert_version(*tree.version)
                await self._connection.copy_records_to_table("policy_nodes", records=tree.nodes, columns=rows.NODE_COLUMNS)
            return "created"

        async def store_searchable(tree: Ready) -> str:
            async with self._connection.transaction():
                await store(tree)
                await index_words(*tree.version[:2])
            return "created"

        async def store_small(tree: Ready) -> str:
            await insert(*tree.version, *tree.nodes)
            return "created"

        async def asking(sql: str) -> Verb:
            fetch = (await prepare(sql)).fetch
            return lambda asked: fetch(POLICY, VERSION, asked)

        async def walking(sql: str) -> Verb:
            fetch = (await prepare(sql)).fetch

            async def walk(node_id: str) -> list[Any]:
                found: list[Any] = await fetch(POLICY, VERSION, node_id)
                found.sort(key=_ordinal)
                return found

            return walk

        async def asking_all(sql: str) -> Verb:
            fetch = (await prepare(sql)).fetch
            return lambda version_id: fetch(POLICY, version_id)

        self.verbs = {
            "store": store,
            "store_small": store_small,
            "store_searchable": store_searchable,
            "store_together": self._store_together,
            "node": lambda node_id: by_id(POLICY, VERSION, node_id),
            "node_outline": await asking(_BY_ID.format(_OUTLINE)),
            "children": await asking(_CHILDREN.format(_NODE)),
            "children_outline": await walking(_FAMILY.format(_OUTLINE, _OUTLINE)),
            "subtree": await walking(_LEVELS.format(LEVELS, _NODE)),
            "subtree_outline": await walking(_LEVELS.format(LEVELS, _OUTLINE)),
            "whole": await asking_all(_RANGE.format(_NODE)),
            "whole_outline": await asking_all(_RANGE.format(_OUTLINE)),
            "ancestors": await walking(_ANCESTORS.format(_NODE)),
            "as_of": lambda time: as_of(HISTORY, time),
            "on_page": await asking(_ON_PAGE.format(_NODE)),
            "search": lambda words: search(POLICY, VERSION, words, BEST),
            "search_all": lambda words: search(POLICY, VERSION, words, ALL),
            "amend": lambda asked: amend(POLICY, VERSION, *asked),
        }

    def close(self) -> None:
        self._connection.terminate()  # whatever it is doing: a signal may have ended the run
        self._pool.terminate()
        super().close()
        self._database.drop()

    def prepare(self) -> None:
        with told(self._database.url):
            self._loop.run(self._connection.execute(_INDEX_PAGES, POLICY, VERSION))
        self.settle()

    def settle(self) -> None:
        self._database.vacuum()

    # --- questions and answers -------------------------------------------------------------------------------------------

    def ready(self, verb: str, question: Any) -> Any:
        """Words as a query, times as the tables have them, trees as the rows that treestore writes."""
        if verb in ("search", "search_all"):
            return " | ".join(question)
        if verb == "as_of":
            return question.replace(tzinfo=None)
        if verb in ("store", "store_searchable"):
            return _rows(question)
        if verb == "store_small":
            return _by_column(_rows(question))
        if verb == "store_together":
            return [_by_column(_rows(tree)) for tree in question]
        return question

    def seconds(self, verb: str, questions: Sequence[Any]) -> float:
        with told(self._database.url):
            return super().seconds(verb, questions)

    def answer(self, verb: str, question: Any) -> Any:
        with told(self._database.url):
            found = super().answer(verb, question)
        if verb in ("search", "search_all"):  # ts_rank is a mean over the words asked
            return [Hit(_plain(row), row["score"] * len(question)) for row in found]
        if verb == "as_of":
            policy, version, effective, *rest = found
            return PlainVersion(policy, version, effective.replace(tzinfo=UTC), *rest)
        if isinstance(found, list) and verb != "amend":
            return [_plain(row) for row in found]
        return _plain(found) if verb == "node" else found

    async def _store_together(self, trees: Sequence[Ready]) -> int:
        waiting = iter(trees)

        async def store_some() -> int:
            stored = 0
            for tree in waiting:
                async with self._pool.acquire() as connection:
                    await connection.fetch(_INSERT, *tree.version, *tree.nodes)
                stored += 1
            return stored

        return sum(await asyncio.gather(*[store_some() for _ in range(TASKS)]))


def _plain(row: Any) -> PlainNode:
    node = PlainNode(*[row.get(column) for _, column in _FIELDS])
    if node.metadata is not None:
        node.metadata = msgspec.json.decode(row["metadata"])
    return node


def _rows(tree: Tree) -> Ready:
    """The rows that treestore writes of a tree."""
    policy_id, version_id = tree.version.policy_id, tree.version.version_id
    with treestore.open_sync("memory://") as store:
        face(store)["store"](tree)
        version = store.versions.get(policy_id, version_id)
        nodes = store.documents.get_subtree(policy_id, version_id=version_id)
    return Ready(list(rows.values(version).values()), list(rows.node_rows(nodes, version.updated_at)))


def _by_column(tree: Ready) -> Ready:
    return Ready(tree.version, list(zip(*tree.nodes, strict=True)))
