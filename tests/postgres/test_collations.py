"""A database that sorts and compares by a language's rules gives the same answers in the same order as any other."""

from __future__ import annotations

from collections.abc import Callable

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


@pytest.fixture
def in_english(postgres_server: Server) -> SyncStore:
    """A store in a database whose order is that of English words (ICU's): "_" before "a" before "B", blanks do not count."""
    name = databases.new_name()
    locale = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US-u-ka-shifted'"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} {locale}".encode())
    with postgres_server.connect(name) as connection:
        ordered = connection.execute("SELECT array_agg(x ORDER BY x) FROM unnest(ARRAY['B', 'a', '_', 'é', 'f']) x").fetchone()
        assert ordered != (sorted(["B", "a", "_", "é", "f"]),), "it does sort by a language's rules"
    return opened(postgres_server.url(name))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promises_hold_whatever_the_language(in_english: SyncStore, promise: Callable[[SyncStore], None]) -> None:
    with in_english as store:
        promise(store)
        assert store.check().problems == []
