"""treestore keeps versioned trees (documents indexed by PageIndex) and answers what an LLM service asks of them.

    import treestore

    with treestore.open_sync("btree:///treestore-data") as store:
        store.documents.store_document("manual", "1", [{"node_id": "0000", "title": "Introduction", "text": "…"}])
        store.documents.get_node("manual", "0000")

Under asyncio: ``async with treestore.open(url) as store``, and ``await`` each verb. See :mod:`treestore.store` for opening,
:mod:`treestore.repositories.documents` and :mod:`treestore.repositories.versions` for the verbs.
"""

from treestore import pageindex
from treestore.config import Settings
from treestore.errors import (
    AccessDenied,
    BrokenTree,
    Closed,
    Conflict,
    Corrupted,
    DiskFull,
    InvalidInput,
    Locked,
    MigrationError,
    NoStore,
    NotAStore,
    NotFound,
    NotSearchable,
    NotSupported,
    OutcomeUnknown,
    ReadOnly,
    Timeout,
    TreestoreError,
    Unavailable,
)
from treestore.records import (
    CheckReport,
    DeleteResult,
    Diff,
    Document,
    DocumentSummary,
    Envelope,
    Fact,
    LostVersion,
    Node,
    NodeChange,
    Outline,
    PageText,
    Place,
    SalvageReport,
    SearchHit,
    StoreResult,
    StoreStats,
    TemporalLookup,
    Version,
)
from treestore.repositories.plan import AsyncDriver, SyncDriver
from treestore.store import (
    AsyncTreeStore,
    Snapshot,
    SyncTreeStore,
    TreeStore,
    open,  # noqa: A004 - as in gzip.open
    open_sync,
    restore,
    salvage,
)

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AsyncDriver",
    "AsyncTreeStore",
    "BrokenTree",
    "CheckReport",
    "Closed",
    "Conflict",
    "Corrupted",
    "DeleteResult",
    "Diff",
    "DiskFull",
    "Document",
    "DocumentSummary",
    "Envelope",
    "Fact",
    "InvalidInput",
    "Locked",
    "LostVersion",
    "MigrationError",
    "NoStore",
    "Node",
    "NodeChange",
    "NotAStore",
    "NotFound",
    "NotSearchable",
    "NotSupported",
    "OutcomeUnknown",
    "Outline",
    "PageText",
    "Place",
    "ReadOnly",
    "SalvageReport",
    "SearchHit",
    "Settings",
    "Snapshot",
    "StoreResult",
    "StoreStats",
    "SyncDriver",
    "SyncTreeStore",
    "TemporalLookup",
    "Timeout",
    "TreeStore",
    "TreestoreError",
    "Unavailable",
    "Version",
    "__version__",
    "open",
    "open_sync",
    "pageindex",
    "restore",
    "salvage",
]
