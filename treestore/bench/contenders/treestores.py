"""treestore itself, through the public API: its two faces on the native store, and the asynchronous one on PostgreSQL.

Questions name the version, as the peers' do. All is as :func:`treestore.open` gives it: settings are the defaults.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import treestore
from treestore.bench.contender import ALL, BEST, CACHE_MB, LEVELS, TASKS, Contender, Place, Scoring, Verb, bm25
from treestore.bench.contenders.awaited import Awaited
from treestore.bench.contenders.databases import Database
from treestore.bench.corpus import HISTORY, POLICY, VERSION, Tree

SCORING = Scoring(bm25(lambda nodes, found: math.log(1 + (nodes - found + 0.5) / (found + 0.5))), 3)
"""As :mod:`treestore.search.ranking` and :mod:`treestore.search.analyzer` say: "M54.5" counts whole, and by its parts."""

SETTINGS = treestore.Settings(cache_size_mb=CACHE_MB)


def face(store: treestore.SyncTreeStore | treestore.AsyncTreeStore) -> dict[str, Verb]:
    """The verbs that are one call. On the asynchronous face they give awaitables."""
    documents, versions = store.documents, store.versions
    store_document: Callable[..., Any] = documents.store_document

    def stored(tree: Tree, **more: Any) -> Any:
        version = tree.version
        return store_document(
            version.policy_id,
            version.version_id,
            tree.given,
            effective_date=version.effective_date,
            description=version.description,
            **more,
        )

    def search(words: tuple[str, ...], limit: int) -> Any:
        return documents.search_nodes(POLICY, " ".join(words), limit=limit, version_id=VERSION)

    return {
        "store": lambda tree: stored(tree, searchable=False),
        "store_small": lambda tree: stored(tree, searchable=False),
        "store_searchable": stored,
        "store_equal": stored,
        "node": lambda node_id: documents.get_node(POLICY, node_id, version_id=VERSION),
        "node_outline": lambda node_id: documents.get_outlines(POLICY, (node_id,), version_id=VERSION),
        "children": lambda node_id: documents.get_children(POLICY, node_id, version_id=VERSION),
        "children_outline": lambda node_id: documents.get_outline(POLICY, node_id, 1, version_id=VERSION),
        "subtree": lambda node_id: documents.get_subtree(POLICY, node_id, LEVELS, version_id=VERSION),
        "subtree_outline": lambda node_id: documents.get_outline(POLICY, node_id, LEVELS, version_id=VERSION),
        "whole": lambda version_id: documents.get_subtree(POLICY, version_id=version_id),
        "whole_outline": lambda version_id: documents.get_outline(POLICY, version_id=version_id),
        "ancestors": lambda node_id: documents.get_ancestor_path(POLICY, node_id, version_id=VERSION),
        "as_of": lambda time: versions.get_version_as_of(HISTORY, time),
        "search": lambda words: search(words, BEST),
        "search_all": lambda words: search(words, ALL),
        "amend": lambda asked: documents.update_node(POLICY, asked[0], version_id=VERSION, text=asked[1]),
        "diff": lambda ids: versions.diff(POLICY, *ids),
        "on_page": lambda page: documents.get_nodes_by_page(POLICY, page, version_id=VERSION),
    }


def _on_page(nodes: Sequence[treestore.Node], page: int) -> list[treestore.Node]:
    return [node for node in nodes if node.page_start is not None and node.page_start <= page <= (node.page_end or 0)]


class NativeSync(Contender):
    """The synchronous face. Small documents of many are stored by threads."""

    name = "treestore"
    scoring = SCORING

    def __init__(self, place: Place) -> None:
        self._url = f"btree:///{place.folder}"
        self._threads = ThreadPoolExecutor(TASKS)
        self._open()

    def _open(self) -> None:
        self._store = treestore.open_sync(self._url, settings=SETTINGS)
        one = face(self._store)
        store, whole = one["store_small"], one["whole"]
        self.verbs = {
            **one,
            "scan_page": lambda page: _on_page(whole(VERSION), page),
            "read_both": lambda ids: sum(len(whole(version_id)) for version_id in ids),
            "store_together": lambda trees: sum(result.outcome == "created" for result in self._threads.map(store, trees)),
        }

    def close(self) -> None:
        self._threads.shutdown()
        self._store.close()

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def settle(self) -> None:
        """There is nothing to be done."""

    def forget(self) -> None:
        """Open the store anew, and read all of its pages: by a check, which makes no records of nodes that could be kept."""
        self._store.close()
        self._open()
        self._store.check()


class _Async(Awaited):
    """The asynchronous face of the store with a URL."""

    scoring = SCORING

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._open()

    def _open(self) -> None:
        self._store = self._loop.run(_opened(self._url))
        one = face(self._store)

        async def scan_page(page: int) -> list[treestore.Node]:
            return _on_page(await one["whole"](VERSION), page)

        async def read_both(ids: Sequence[str]) -> int:
            return sum([len(await one["whole"](version_id)) for version_id in ids])

        async def store_together(trees: Sequence[Tree]) -> int:
            waiting = iter(trees)

            async def store_some() -> int:
                return sum([(await one["store_small"](tree)).outcome == "created" for tree in waiting])

            return sum(await asyncio.gather(*[store_some() for _ in range(TASKS)]))

        self.verbs = {
            **one,
            "scan_page": scan_page,
            "read_both": read_both,
            "store_together": store_together,
        }

    def close(self) -> None:
        self._loop.run(_closed(self._store))
        super().close()


class NativeAsync(_Async):
    """The asynchronous face on the native store."""

    name: ClassVar[str] = "treestore async"

    def __init__(self, place: Place) -> None:
        super().__init__(f"btree:///{place.folder}")

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def settle(self) -> None:
        """There is nothing to be done."""

    def forget(self) -> None:
        """Open the store anew, and read all of its pages: by a check, which makes no records of nodes that could be kept."""
        self._loop.run(_closed(self._store))
        self._open()
        self._loop.run(self._store.check())


class OnPostgres(_Async):
    """The asynchronous face on PostgreSQL."""

    name: ClassVar[str] = "treestore on PostgreSQL"

    def __init__(self, place: Place) -> None:
        self._database = Database(place)
        try:
            super().__init__(self._database.url)
        except BaseException:
            self._database.drop()
            raise

    def close(self) -> None:
        super().close()
        self._database.drop()

    def forget(self) -> None:
        """Nothing is kept of earlier answers."""

    def prepare(self) -> None:
        self._database.vacuum()

    def settle(self) -> None:
        self._database.vacuum()


async def _opened(url: str) -> treestore.AsyncTreeStore:
    return await treestore.open(url, settings=SETTINGS)


async def _closed(store: treestore.AsyncTreeStore) -> None:
    await store.close()
