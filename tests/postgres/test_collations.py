"""A database that sorts and compares by a language's rules gives the same answers in the same order as any other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from tests.contract import test_limits as limits
from tests.postgres import databases
from tests.postgres.faults import opened
from tests.postgres.server import Server
from tests.stores import SyncStore

PROMISES: list[Callable[[SyncStore], None]] = [
    limits.test_ids_are_in_the_order_of_their_code_points,
    limits.test_ids_that_differ_in_case_normal_form_or_blanks_are_others,
    limits.test_versions_of_one_moment_are_in_the_order_of_ingestion_whatever_their_ids,
    limits.test_wildcards_and_patterns_mean_themselves,
    limits.test_words_of_any_length_can_be_searched_for,
]


LANGUAGES = [
    "LOCALE_PROVIDER icu ICU_LOCALE 'en-US-u-ka-shifted'",  # blanks and "_" count for nothing, then "a" before "B"
    "LOCALE 'en_US.UTF-8'",
    "LOCALE 'de_DE.UTF-8'",
]
"""What databases can sort by, where the server was built with it or the system has it."""


@pytest.fixture
def in_english(postgres_server: Server) -> SyncStore:
    """A store in a database that sorts by a language. The one thing beside PgBouncer that may be missing: the wheel's
    PostgreSQL has no ICU, and few containers have locales."""
    name = databases.new_name()
    with postgres_server.connect() as connection:
        for language in LANGUAGES:
            with suppress(psycopg.Error):
                connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {language}".encode())
                break
        else:
            pytest.skip("this PostgreSQL was built without ICU, and the system has no locale of a language")
    with postgres_server.connect(name) as connection:
        ordered = connection.execute("SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['B', 'a', '_', 'f']) x").fetchone()
        assert ordered != ("B_af",), "it does sort by a language's rules"
    return opened(postgres_server.url(name))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promises_hold_whatever_the_language(in_english: SyncStore, promise: Callable[[SyncStore], None]) -> None:
    with in_english as store:
        promise(store)
        assert store.check().problems == []
