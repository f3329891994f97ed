"""The matrix of the contract suite: every test here runs on every kind of store, and ends with a check of the whole store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clock import SetClock
from tests.stores import KINDS, STEADY, URLS, BothFaces, SyncStore, open_backend
from treestore import Closed
from treestore.operations import Check

LEFT_OUT = {
    "btree-reopened": {"test_rules.py"},
    "postgres-reopened": {"test_rules.py"},
    "postgres-pgbouncer": {"test_rules.py", "test_limits.py", "test_diff.py", "test_pages.py"},
}
"""What input is refused is decided before anything is asked of a store, so it need not be opened anew in between, nor reached
in another way. By way of PgBouncer it matters which connection a statement runs on, and the other files try that."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what can't be otherwise than on the same store without a detour."""
    for kind, files in LEFT_OUT.items():
        items[:] = [each for each in items if f"[{kind}" not in each.name or each.path.name not in files]


def _opened(name: str, folder: Path, clock: SetClock) -> Iterator[SyncStore]:
    kind = KINDS[name]
    with kind.open(kind.url(folder), clock, None) as store:
        yield store
        with suppress(Closed):
            assert store.check().problems == []


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> Iterator[SyncStore]:
    """A new, empty store."""
    yield from _opened(request.param, tmp_path, clock)


@pytest.fixture(params=STEADY)
def steady_store(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> Iterator[SyncStore]:
    """A new, empty store that is not closed between steps."""
    yield from _opened(request.param, tmp_path, clock)


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty store, opened by nobody yet."""
    return URLS[request.param](tmp_path)


@pytest.fixture
def backend(url: str, clock: SetClock) -> Iterator[BothFaces]:
    """The backend of a new, empty store."""
    opened = open_backend(url, clock)
    yield opened
    assert opened.read_one_now(Check()).problems == []
    opened.close_now()
