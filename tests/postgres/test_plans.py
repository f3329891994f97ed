"""Every look-up of nodes takes the one index that finds them, whatever the server thinks of the documents.

The server is shown a large document alone and among many small ones whose versions have names of their own, before and after
it has looked at them. What it then plans is run: nothing may be read and thrown away, but for the last level of a walk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import treestore
from tests.postgres import databases
from treestore.backends.postgres.sql import groups, kept, nodes, shared
from treestore.backends.postgres.sql.statement import Statement
from treestore.backends.postgres.sql.versions import NAMED
from treestore.records import Node

NODES = 4000
OF_NODE = {"policy_id": "manual", "version_id": "1", "node_id": "03999", "max_depth": 3}

LOOKUPS: dict[str, tuple[Statement, dict[str, Any]]] = {
    "node": (nodes.nodes(Node, NAMED, one=True), OF_NODE),
    "nodes": (nodes.nodes(Node, NAMED, one=False), {**OF_NODE, "node_id": ["00007", "03999"]}),
    "nodes at": (nodes.nodes_at(Node), {**OF_NODE, "ordinal": [7, 3999]}),
    "children": (nodes.children(Node, NAMED, of_node=True), {**OF_NODE, "node_id": "00400"}),
    "roots": (nodes.children(Node, NAMED, of_node=False), OF_NODE),
    "subtree": (nodes.subtree(Node, NAMED, of_node=True, bounded=False), {**OF_NODE, "node_id": "00400"}),
    "levels": (nodes.subtree(Node, NAMED, of_node=True, bounded=True), {**OF_NODE, "node_id": "00003"}),
    "ancestors": (nodes.ancestors(Node, NAMED), OF_NODE),
    "hits": (kept.hits(), {"policy_id": ["manual"], "version_id": ["1"], "ordinal": [3999]}),
    "amending": (groups.amend_node(("summary",)), {**OF_NODE, "at_ordinal": 3999, "summary": "new"}),
    "titles": (groups.titles_of(), {**OF_NODE, "ordinal": 3999}),
    "titles below": (groups.titles_below(), {**OF_NODE, "ordinal": 3999, "titles": "new"}),
    "deriving": (shared.derive_nodes(), {"row": [7, 3999], **{name: [None, None] for name in shared.DERIVED.values()}}),
    "entitling": (groups.entitle(), {**OF_NODE, "row": 7, "titles": "new"}),
}


@pytest.fixture(scope="module", params=["alone, unseen", "alone", "among many, unseen", "among many"])
def connection(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    name = f"plans_{re.sub('[^a-z]', '_', request.param)}"
    databases.server().make_database(name, databases.template().template_dbname)
    with treestore.open_sync(databases.server().url(name)) as store, databases.server().connect(name) as connection:
        tree = [
            {"node_id": f"{i:05}", "parent_id": f"{(i - 1) // 8:05}" if i else None, "title": "a title", "text": "text " * 100}
            for i in range(NODES)
        ]
        store.documents.store_document("manual", "1", tree, searchable=False)
        if request.param.startswith("among many"):
            connection.execute("ANALYZE")
            for i in range(60):
                store.documents.store_document("history", f"version {i}", tree[:1], searchable=False)
                store.documents.store_document(f"small {i}", f"of {i}", tree[:1], searchable=False)
        if not request.param.endswith("unseen"):
            connection.execute("ANALYZE")
        connection.prepare_threshold = None
        for command in groups.preparation():
            connection.execute(command.encode())
        yield connection
    databases.server().drop_database(name)


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_nothing_is_read_in_vain(connection: psycopg.Connection[Any], lookup: str) -> None:
    statement, values = LOOKUPS[lookup]
    arguments = psycopg.sql.SQL(", ").join(psycopg.sql.Literal(value) for value in statement.arguments(values))
    connection.execute(f"PREPARE lookup AS {statement.sql}".encode())
    execute = psycopg.sql.SQL("EXPLAIN (ANALYZE) EXECUTE lookup({})").format(arguments)
    plan = [line for (line,) in connection.execute(execute)]
    connection.execute("DEALLOCATE lookup")

    vain = [int(found[1]) for line in plan if (found := re.search(r"Rows Removed by Filter: (\d+)", line))]
    assert max(vain, default=0) <= 512, "\n".join(plan)
    assert not any("Seq Scan on policy_nodes" in line or "Bitmap" in line for line in plan), "\n".join(plan)
    found_rows = [re.search(r"Index Scan.*rows=(\d+) loops=(\d+)\)", line) for line in plan]
    scanned = [int(found[1]) * int(found[2]) for found in found_rows if found]
    assert max(scanned) <= 1200, "\n".join(plan)
