"""The stores that are measured: one class for each, and which of them there are on this machine.

A further one is a class more in :func:`available`.
"""

from __future__ import annotations

from treestore.bench.cases import LMDB
from treestore.bench.contender import Contender
from treestore.bench.contenders.limit import Limit
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.contenders.treestores import NativeAsync, NativeSync, OnPostgres


def available(*, server: bool = False) -> list[type[Contender]]:
    """The contenders that this installation can open, treestore first. LMDB is one where its Python package is installed,
    PostgreSQL where there is a ``server`` of it."""
    found: list[type[Contender]] = [NativeSync, NativeAsync, Sqlite]
    try:
        from treestore.bench.contenders.lmdb import Lmdb
    except ImportError:
        pass
    else:
        found.append(Lmdb)
    if server:
        from treestore.bench.contenders.postgres import Postgres

        found += [OnPostgres, Postgres]
    return [*found, Limit]


def left_out() -> str | None:
    """Who can't be measured here and why, on one line; None if all can. PostgreSQL is measured where a server is named."""
    if any(kind.name == LMDB for kind in available()):
        return None
    return f"{LMDB} is left out: Python's lmdb is not installed (pip install lmdb)"
