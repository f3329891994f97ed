"""Makes ``store.tar.gz`` and ``expected.json``: a store of format 2 whose log links leaves and deletes ranges.

What the store beside it does not have: trees of several levels, a free list, a tree that was loaded in bulk and is linked by
the log alone, deletions in the log, several log files, a version that can't be searched, texts in runs of many versions.

``python tests/golden/btree-2-linked/make_linked.py`` was run once for this format. The files are committed and never made
again: what a later version makes would prove nothing about what an earlier one wrote.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import treestore  # noqa: E402 - the project's own, wherever this is run from
from treestore import Settings, SyncDriver, TreeStore  # noqa: E402
from treestore.backends.btree import backend  # noqa: E402

ARCHIVE, EXPECTED = HERE / "store.tar.gz", HERE / "expected.json"
REPLAYED = 7


def exported(store: TreeStore[SyncDriver]) -> Any:
    """All that can be read: every version with its facts, nodes and page texts, deleted ones by their facts."""
    found = {}
    for policy_id in ("changed", "bulk", "plain", "gone", "late"):
        for version in store.versions.list(policy_id, include_deleted=True):
            whole: Any = version
            if version.deleted_at is None:
                document = store.documents.get_document(policy_id, version_id=version.version_id)
                whole = {name: getattr(document, name) for name in document.__struct_fields__}
                on_page = store.documents.get_nodes_by_page(policy_id, 30, version_id=version.version_id)
                whole["on page 30"] = [node.node_id for node in on_page]
                if version.analyzer:
                    hits = store.documents.search_nodes(policy_id, "amended 37", version_id=version.version_id)
                    whole["amended 37"] = [hit.node.node_id for hit in hits]
            found[f"{policy_id} {version.version_id}"] = whole
    return msgspec.json.decode(msgspec.json.encode(found))


def tree(count: int, said: str, length: int = 1) -> list[dict[str, Any]]:
    """Nodes of fan-out 8 with pages."""
    return [
        {
            "node_id": f"{n:04}",
            "parent_id": f"{(n - 1) // 8:04}" if n else None,
            "title": f"{said} {n}",
            "text": f"text {n} of {said}. " * length,
            "page_start": n + 1,
            "page_end": n + 3,
        }
        for n in range(count)
    ]


def fill(store: TreeStore[SyncDriver]) -> None:
    """What lies in the checkpoints: versions that share texts, and pages that became free."""
    many = tree(100, "changed")
    store.documents.store_document("changed", "1", many)
    store.documents.store_document("changed", "2", [{**n, "text": "anew"} if n["node_id"] == "0050" else n for n in many])
    pages = [{"page": 3, "content": "p" * 9000}]
    store.documents.store_document("plain", "1", tree(50, "plain"), searchable=False, pages=pages)
    store.documents.store_document("gone", "1", tree(60, "gone", 20))
    store.documents.store_document("gone", "2", tree(20, "gone"))
    engine: Any = store._driver.backend
    engine._engine.checkpoint()
    store.documents.delete_version("gone", "1")
    store.documents.store_document("changed", "3", [*many[:80], {"node_id": "new", "parent_id": "0000", "title": "new"}])
    engine._engine.checkpoint()
    engine._engine.tidy()


def log_only(store: TreeStore[SyncDriver]) -> None:
    """What lies in the log only, but for the leaves that it links."""
    with mock.patch.object(backend, "BULK_BYTES", 1000):  # as one of more than a megabyte is
        store.documents.store_document("bulk", "1", tree(70, "bulk", 12))
    store.documents.update_node("bulk", "0037", text="amended in the log, after it was linked there")
    store.documents.delete_version("changed", "1")
    store.documents.update_node("changed", "0037", version_id="2", text=None, summary="amended: no text any more")


def latest(store: TreeStore[SyncDriver]) -> None:
    """What lies in the newest log file."""
    store.documents.store_document("late", "1", tree(10, "late"), pages=[{"page": 1, "content": "late"}], tags=("late",))
    store.versions.set_effective_date("changed", "3", date(2026, 5, 1))
    store.documents.delete_version("gone", "2")


def main() -> None:
    """Make both files, from the files of a store that was left open."""
    moment = datetime(2026, 4, 1, 12, 0, 0, 654321, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal moment
        moment += timedelta(seconds=1)
        return moment

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store")
        settings = Settings(wal_file_size_mb=1)
        store = treestore.open_sync(f"btree:///{path}", settings=settings, clock=clock)
        fill(store)
        store.close()
        store = treestore.open_sync(f"btree:///{path}", settings=settings, clock=clock)
        log_only(store)
        engine: Any = store._driver.backend
        engine._checkpointer.stop()
        engine._engine._let_go("as if it had been killed")
        store = treestore.open_sync(f"btree:///{path}", settings=settings, clock=clock)
        latest(store)
        EXPECTED.write_bytes(msgspec.json.encode(exported(store)) + b"\n")
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            for file in sorted([path / "data", *path.glob("wal/*")]):
                entry = tarfile.TarInfo(str(file.relative_to(path)))
                content = file.read_bytes()
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        ARCHIVE.write_bytes(gzip.compress(plain.getvalue(), mtime=0))
        store.close()


if __name__ == "__main__":
    main()
