"""What the tests of PostgreSQL share beside the suite's server: a PgBouncer in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres.pgbouncer import NoPgBouncer, PgBouncer
from tests.postgres.server import Server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: Server) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode in front of the suite's server. The one thing that may be skipped, with the reason."""
    try:
        bouncer = PgBouncer(postgres_server)
    except NoPgBouncer as missing:
        pytest.skip(str(missing))
    with bouncer:
        yield bouncer
