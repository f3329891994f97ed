"""Makes ``store.tar.gz`` and ``expected.json``: a small store of format 2 and all that can be read from it.

``python tests/golden/btree-2/make.py`` was run once for this format. The files are committed and never made again: what a
later version makes would prove nothing about what an earlier one wrote.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import treestore  # noqa: E402 - the project's own, wherever this is run from
from treestore import Settings, SyncDriver, TreeStore  # noqa: E402

ARCHIVE, EXPECTED = HERE / "store.tar.gz", HERE / "expected.json"
REPLAYED = 2
EVERY_PLANE = "A\u007fé\u07ff한\ufffd\U00010000😀\r\n\t\u2028"


def exported(store: TreeStore[SyncDriver]) -> Any:
    """All that can be read: every version with its facts, nodes and page texts, deleted ones by their facts."""
    found = {}
    for policy_id in ("shapes", "large", "deleted"):
        for version in store.versions.list(policy_id, include_deleted=True):
            whole: Any = version
            if version.deleted_at is None:
                document = store.documents.get_document(policy_id, version_id=version.version_id)
                whole = {name: getattr(document, name) for name in document.__struct_fields__}
                on_page = store.documents.get_nodes_by_page(policy_id, 1, version_id=version.version_id)
                whole["on page 1"] = [node.node_id for node in on_page]
            found[f"{policy_id} {version.version_id}"] = whole
    return msgspec.json.decode(msgspec.json.encode(found))


def fill(store: TreeStore[SyncDriver]) -> None:
    """Every kind of thing that a store holds: sharing of texts, amendments, tombstones, long values, absent and empty."""
    effective = datetime(2026, 1, 1, tzinfo=UTC)
    tree: list[dict[str, Any]] = [
        {"node_id": "a", "title": "", "text": "", "summary": EVERY_PLANE, "page_start": 1, "page_end": 2**31 - 1},
        {"node_id": "a1", "parent_id": "a", "title": "t" * 480, "metadata": {"x": [1, -(2**63), 2**64 - 1, 1.5, None, True]}},
        {"node_id": "a2", "parent_id": "a", "title": "long", "text": "long text " * 2000, "line_num": 7},
        {"node_id": "b", "title": "root two", "prefix_summary": "before", "validation_status": "flagged", "kept": {"é": []}},
    ]
    pages = [{"page": 9, "content": "page nine"}, {"page": 1, "content": "", "kept": None}]
    store.documents.store_document("shapes", "1", tree, pages=pages, effective_date=effective, tags=("one", "two"))
    store.documents.store_document("shapes", "2", [*tree[:3], {**tree[3], "text": "new in 2"}], pages=pages[:1])
    store.documents.update_node("shapes", "a2", version_id="2", title="amended", text="amended text")
    store.versions.set_effective_date("shapes", "1", effective + timedelta(days=30))
    many = [{"node_id": f"{n:05}", "parent_id": f"{(n - 1) // 8:05}" if n else None, "title": f"node {n}"} for n in range(200)]
    store.documents.store_document("large", "1", [{**node, "text": f"text of {node['title']}"} for node in many])
    store.documents.store_document("deleted", "1", many[:5])
    store.documents.delete_version("deleted", "1")


def main() -> None:
    """Make both files: most of the store lies in a checkpoint, the end of it in the log only."""
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal moment
        moment += timedelta(seconds=1)
        return moment

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store")
        store = treestore.open_sync(f"btree:///{path}", settings=Settings(wal_file_size_mb=1), clock=clock)
        fill(store)
        engine: Any = store._driver.backend
        engine._engine.checkpoint()
        store.documents.store_document("shapes", "3", [{"node_id": "late", "title": "in the log only", "text": "late"}])
        store.documents.update_node("large", "00199", text="amended in the log only")
        EXPECTED.write_bytes(msgspec.json.format(msgspec.json.encode(exported(store)), indent=1) + b"\n")
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
