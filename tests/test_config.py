"""Settings from the environment: what they may be, what is said of what they may not be, and what is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from treestore import InvalidInput, Settings
from treestore.config import masked, show


def test_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.url, settings.cache_size_mb, settings.wal_file_size_mb) == ("btree:///treestore-data", 512, 100)
    assert (settings.checkpoint_interval_seconds, settings.snapshot_max_age_seconds) == (600.0, 3600.0)
    assert (settings.pool_size, settings.pool_timeout_seconds, settings.connect_timeout_seconds) == (10, 10.0, 5.0)
    assert (settings.statement_timeout_seconds, settings.pgbouncer) == (60.0, False)


def test_each_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "TREESTORE_URL": "memory://",
        "TREESTORE_CACHE_SIZE_MB": " 64 ",
        "TREESTORE_CHECKPOINT_INTERVAL_SECONDS": "0.5",
        "TREESTORE_WAL_FILE_SIZE_MB": "1",
        "TREESTORE_SNAPSHOT_MAX_AGE_SECONDS": "1e3",
        "TREESTORE_POOL_SIZE": "20",
        "TREESTORE_POOL_TIMEOUT_SECONDS": "2",
        "TREESTORE_CONNECT_TIMEOUT_SECONDS": "3",
        "TREESTORE_STATEMENT_TIMEOUT_SECONDS": "2147483",
        "TREESTORE_PGBOUNCER": " Yes ",
    }
    expected = Settings(
        url="memory://",
        cache_size_mb=64,
        checkpoint_interval_seconds=0.5,
        wal_file_size_mb=1,
        snapshot_max_age_seconds=1000.0,
        pool_size=20,
        pool_timeout_seconds=2.0,
        connect_timeout_seconds=3.0,
        statement_timeout_seconds=2_147_483.0,
        pgbouncer=True,
    )
    assert Settings.from_environment(given) == expected
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == expected


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("on", True), ("false", False), ("0", False), ("OFF", False)]
)
def test_what_is_true_or_false(text: str, value: bool) -> None:
    assert Settings.from_environment({"TREESTORE_PGBOUNCER": text}).pgbouncer is value


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("TREESTORE_URL", "", "must be the URL of a store"),
        ("TREESTORE_URL", "  ", "must be the URL of a store"),
        ("TREESTORE_CACHE_SIZE_MB", "", "must be a whole number, not ''"),
        ("TREESTORE_CACHE_SIZE_MB", "lots", "must be a whole number, not 'lots'"),
        ("TREESTORE_CACHE_SIZE_MB", "1.5", "must be a whole number, not '1.5'"),
        ("TREESTORE_CACHE_SIZE_MB", "1_000", "must be a whole number"),
        ("TREESTORE_CACHE_SIZE_MB", "٣", "must be a whole number"),
        ("TREESTORE_CACHE_SIZE_MB", "0", "must be from 1 to 1048576 megabytes, not 0"),
        ("TREESTORE_CACHE_SIZE_MB", "-1", "must be from 1 to 1048576 megabytes, not -1"),
        ("TREESTORE_CACHE_SIZE_MB", "9" * 5000, "must be a whole number, not '9999"),
        ("TREESTORE_WAL_FILE_SIZE_MB", "1048577", "must be from 1 to 1048576 megabytes"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "0", "must be above 0"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "-1", "must be above 0"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "nan", "must be above 0"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "inf", "must be above 0"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "10 min", "must be a number of seconds, not '10 min'"),
        ("TREESTORE_SNAPSHOT_MAX_AGE_SECONDS", "0", "must be above 0"),
        ("TREESTORE_SNAPSHOT_MAX_AGE_SECONDS", "1e99", "must be above 0 and at most"),
        ("TREESTORE_POOL_SIZE", "0", "must be from 1 to 1000 connections, not 0"),
        ("TREESTORE_POOL_SIZE", "1001", "must be from 1 to 1000 connections"),
        ("TREESTORE_POOL_SIZE", "many", "must be a whole number, not 'many'"),
        ("TREESTORE_POOL_TIMEOUT_SECONDS", "0", "must be above 0"),
        ("TREESTORE_CONNECT_TIMEOUT_SECONDS", "soon", "must be a number of seconds, not 'soon'"),
        ("TREESTORE_STATEMENT_TIMEOUT_SECONDS", "2147484", "must be at most 2147483 seconds, not 2147484.0"),
        ("TREESTORE_STATEMENT_TIMEOUT_SECONDS", "-1", "must be above 0"),
        ("TREESTORE_PGBOUNCER", "", "must be true or false, not ''"),
        ("TREESTORE_PGBOUNCER", "maybe", "must be true or false, not 'maybe'"),
    ],
)
def test_every_error_names_its_variable_and_its_rule(variable: str, value: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_environment({variable: value})
    assert caught.value.field == variable
    assert str(caught.value).startswith(f"{variable}: {rule}")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", 1),
        ("cache_size_mb", "64"),
        ("cache_size_mb", True),
        ("cache_size_mb", 1.0),
        ("wal_file_size_mb", None),
        ("checkpoint_interval_seconds", "600"),
        ("checkpoint_interval_seconds", False),
        ("snapshot_max_age_seconds", None),
        ("pool_size", 10.0),
        ("pool_size", True),
        ("pool_timeout_seconds", "10"),
        ("statement_timeout_seconds", None),
        ("pgbouncer", 1),
        ("pgbouncer", "true"),
    ],
)
def test_settings_made_in_code_obey_the_same_rules(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^TREESTORE_{field.upper()}: must be "):
        Settings(**{field: value})


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Settings().url = "memory://"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("btree:///folder", "btree:///folder"),
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:se:cr@et@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:sec/ret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:sec ret@host/db", "postgresql://user:***@host/db"),
        ("postgresql+asyncpg://:secret@host", "postgresql+asyncpg://:***@host"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("postgresql://host/db?sslpassword=secret", "postgresql://host/db?sslpassword=***"),
        ("postgresql://host:5432/db?password=sec@ret", "postgresql://host:5432/db?password=***"),
        ("postgresql://host/db?p%61ssword=secret", "postgresql://host/db?p%61ssword=***"),
        ("postgresql://host/db?a=1;PASSWORD=secret", "postgresql://host/db?a=1;PASSWORD=***"),
        ("postgresql://us er:secret@host/db", "postgresql://us er:***@host/db"),
        ("postgresql://us/er:secret@host/db", "postgresql://us/er:***@host/db"),
        ("postgresql://me@tenant:secret@host/db", "postgresql://me@tenant:***@host/db"),
        ("postgresql:/user:secret@host/db", "postgresql:/user:***@host/db"),
        ("postgresql:user:secret@host/db", "postgresql:user:***@host/db"),
        ("postgresql://user:%73ecret%40@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user@[::1]:5432/db", "postgresql://user@[::1]:5432/db"),
        ("postgresql://user:secret@[::1]:5432/db", "postgresql://user:***@[::1]:5432/db"),
        ("btree:////folder/a:b@c", "btree:////folder/a:b@c"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert "secret" not in masked(url)


def test_what_is_shown_says_where_it_comes_from_and_reports_unknown_variables() -> None:
    entries = show(
        {
            "TREESTORE_URL": "postgresql://user:secret@host/db",
            "TREESTORE_CACHE_SIZE": "64",
            "TREESTORE_A_PASSWORD": "secret",
            "TREESTORE_DEBUG": "1",
            "TREESTORE_PGBOUNCER": "yes",
            "HOME": "/",
        }
    )
    assert [(entry.variable, entry.value, entry.source) for entry in entries] == [
        ("TREESTORE_URL", "postgresql://user:***@host/db", "environment"),
        ("TREESTORE_CACHE_SIZE_MB", "512", "default"),
        ("TREESTORE_CHECKPOINT_INTERVAL_SECONDS", "600.0", "default"),
        ("TREESTORE_WAL_FILE_SIZE_MB", "100", "default"),
        ("TREESTORE_SNAPSHOT_MAX_AGE_SECONDS", "3600.0", "default"),
        ("TREESTORE_POOL_SIZE", "10", "default"),
        ("TREESTORE_POOL_TIMEOUT_SECONDS", "10.0", "default"),
        ("TREESTORE_CONNECT_TIMEOUT_SECONDS", "5.0", "default"),
        ("TREESTORE_STATEMENT_TIMEOUT_SECONDS", "60.0", "default"),
        ("TREESTORE_PGBOUNCER", "true", "environment"),
        ("TREESTORE_A_PASSWORD", "***", "unknown variable"),
        ("TREESTORE_CACHE_SIZE", "***", "unknown variable"),
    ]
