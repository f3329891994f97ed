"""That the PgBouncer of the tests is the hard case that it is there for."""

from __future__ import annotations

from itertools import pairwise

import psycopg
import pytest

from tests.postgres import databases
from tests.postgres.pgbouncer import PORT, PgBouncer
from tests.postgres.server import Server


def client(bouncer: PgBouncer, database: str) -> psycopg.Connection[tuple[int]]:
    return psycopg.connect(
        host=bouncer.host, port=PORT, user="postgres", dbname=database, prepare_threshold=None, autocommit=True
    )


@pytest.fixture
def database(postgres_server: Server) -> str:
    name = databases.new_name()
    postgres_server.make_database(name)
    return name


def test_transactions_of_one_client_hop_between_connections(pgbouncer: PgBouncer, database: str) -> None:
    pids = pgbouncer.open_all(database)
    assert len(pids) == 2
    with client(pgbouncer, database) as connection:
        seen = [connection.execute("SELECT pg_backend_pid()").fetchone() for _ in range(6)]
    assert {row[0] for row in seen if row} == pids
    assert all(before != after for before, after in pairwise(seen))


def test_what_a_session_keeps_is_lost_on_the_way(pgbouncer: PgBouncer, database: str) -> None:
    pgbouncer.open_all(database)
    with client(pgbouncer, database) as connection:
        connection.execute("PREPARE kept AS SELECT 1")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            connection.execute("EXECUTE kept")
