"""What all tests share: a clock that can be set, databases that go with the test, Hypothesis without a time limit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from tests.clock import SetClock
from tests.postgres import databases
from tests.postgres.server import Server

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("shared")


def pytest_configure() -> None:
    """What whoever runs the tests has told PostgreSQL's clients (PGHOST, PGOPTIONS…) is not for servers of the tests, nor what
    their shell does with Ctrl-C."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    # A shell that runs the tests in the background has them ignore Ctrl-C, and so would all that they start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    databases.close()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the environment of who runs them says."""
    for name in [name for name in os.environ if name.startswith("TREESTORE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _databases_go_with_the_test() -> Iterator[None]:
    yield
    databases.take_back()


@pytest.fixture(scope="session")
def postgres_server() -> Server:
    """The suite's server; who would stop it or change it starts one of their own."""
    return databases.server()


@pytest.fixture(scope="session")
def postgresql_noproc() -> NoopExecutor:
    """Where pytest-postgresql's fixtures find the server and the migrated template: on the suite's own."""
    return databases.template()


postgresql = factories.postgresql("postgresql_noproc")
"""A psycopg connection to a new, migrated database of the test's own."""
