"""What the tests of PostgreSQL share beside the suite's server: a PgBouncer in front of it."""

from __future__ import annotations

import pytest

from tests.postgres import databases
from tests.postgres.pgbouncer import PgBouncer


@pytest.fixture(scope="session")
def pgbouncer() -> PgBouncer:
    """A PgBouncer in transaction mode in front of the suite's server. The one thing that may be skipped, with the reason."""
    return databases.bouncer()
