"""``versions`` with as-of lookups, and ``delete``."""

from __future__ import annotations

from datetime import date

import pytest

import treestore as package
from tests.cli.command import Command, Files, node
from tests.clock import SetClock


@pytest.fixture
def leave(treestore: Command, files: Files) -> Command:
    """Three revisions of one policy."""
    for version, start in (("1", "2026-01-01"), ("2", "2026-03-01"), ("3", "2026-07-01")):
        path = files.document(node("a", title=f"of {version}"), name="leave.json")
        treestore.done("ingest", path, "--version", version, "--effective-date", start, "--description", f"rev {version}")
    return treestore


def test_list(leave: Command) -> None:
    lines = leave.done("versions", "leave").lines
    assert [line.split()[:2] for line in lines] == [
        ["VERSION", "EFFECTIVE"],
        ["1", "2026-01-01"],
        ["2", "2026-03-01"],
        ["3", "2026-07-01"],
    ]
    assert [version["version_id"] for version in leave.done("versions", "leave", "--json").json] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("date", "version"),
    [
        ("2026-01-01", "1"),
        ("2026-02-28", "1"),
        ("2026-02-28T23:59:59.999999Z", "1"),
        ("2026-03-01T00:00:00", "2"),
        ("2026-03-01T01:00:00+02:00", "1"),
        ("2026-03-01", "2"),
        ("2026-03-02", "2"),
        ("2026-06-30", "2"),
        ("2026-07-01", "3"),
        ("2200-01-01", "3"),
    ],
)
def test_as_of(leave: Command, date: str, version: str) -> None:
    assert leave.done("versions", "leave", "--as-of", date, "--json").json["version_id"] == version
    heading, row = leave.done("versions", "leave", "--as-of", date).lines
    assert heading.split()[0] == "VERSION"
    assert row.split()[0] == version


def test_as_of_before_the_first_and_as_known_before_it_was(leave: Command) -> None:
    assert "policy 'leave'" in leave.refused(1, "versions", "leave", "--as-of", "2025-12-31")
    assert "policy 'leave'" in leave.refused(1, "versions", "leave", "--as-of", "2026-12-31", "--known-at", "2020-01-01")
    known = ["--known-at", "2200-01-01"]
    assert leave.done("versions", "leave", "--as-of", "2026-02-01", *known, "--json").json["version_id"] == "1"
    assert "policy 'leave'" in leave.refused(1, "versions", "leave", "--known-at", "2020-01-01")


def test_the_effective_date_is_shown_as_it_was_known(treestore: Command) -> None:
    clock = SetClock()
    with package.open_sync(treestore.url, clock=clock) as store:
        store.documents.store_document("leave", "1", [{"node_id": "a", "title": "A"}], effective_date=date(2026, 1, 1))
        store.documents.store_document("leave", "2", [{"node_id": "a", "title": "A"}])
        clock.advance(days=10)
        store.versions.set_effective_date("leave", "1", date(2025, 6, 1))
        store.versions.set_effective_date("leave", "2", date(2026, 5, 1))
    for known_at, effective in (("2026-03-02", "2026-01-01"), ("2026-04-01", "2025-06-01")):
        question = ["versions", "leave", "--as-of", "2026-02-01", "--known-at", known_at]
        assert treestore.done(*question).lines[1].split()[:3] == ["1", effective, "2026-03-01"]
        answer = treestore.done(*question, "--json").json
        assert answer["effective_date"] == "2025-06-01T00:00:00Z", "the version is as it is now"
        assert answer["known"]["effective_date"] == f"{effective}T00:00:00Z"
        assert answer["known"]["ingested_at"] == "2026-03-01T12:00:00Z"
        assert answer["known"]["known_at"] == f"{known_at}T23:59:59.999999Z"
    undated = ["versions", "leave", "--as-of", "2026-03-05", "--known-at", "2026-03-05"]
    assert treestore.done(*undated).lines[1].split()[:2] == ["2", "-"]
    assert treestore.done(*undated, "--json").json["known"]["effective_date"] is None
    assert "known" not in treestore.done("versions", "leave", "--as-of", "2026-02-01", "--json").json


@pytest.mark.parametrize("option", ["--as-of", "--known-at"])
def test_deleted_versions_are_listed_and_never_in_effect(leave: Command, option: str) -> None:
    assert "--deleted is for listing" in leave.refused(2, "versions", "leave", option, "2026-07-01", "--deleted")
    leave.done("delete", "leave", "--version", "3", "--yes")
    assert leave.done("versions", "leave", "--as-of", "2026-07-01", "--json").json["version_id"] == "2"


@pytest.mark.parametrize("option", ["--as-of", "--known-at"])
@pytest.mark.parametrize("date", ["", "yesterday", "2026-00-01", "0000-01-01", "10000-01-01", "1700000000"])
def test_bad_dates(leave: Command, option: str, date: str) -> None:
    assert "is no ISO date" in leave.refused(2, "versions", "leave", option, date)


def test_delete_one_version(leave: Command) -> None:
    assert leave.done("delete", "leave", "--version", "2", "--yes").out == "deleted    leave 2  1 node\n"
    assert [version["version_id"] for version in leave.done("versions", "leave", "--json").json] == ["1", "3"]
    assert "was deleted at" in leave.refused(1, "tree", "leave", "--version", "2")
    assert "was deleted at" in leave.refused(1, "delete", "leave", "--version", "2", "--yes")
    tombstone = leave.done("versions", "leave", "--deleted", "--json").json[1]
    assert tombstone["deleted_at"] is not None
    assert "(deleted " in leave.done("versions", "leave", "--deleted").out


def test_delete_a_document(leave: Command) -> None:
    assert leave.done("delete", "leave", "--yes", "--json").json == {
        "policy_id": "leave",
        "version_ids": ["1", "2", "3"],
        "node_count": 3,
    }
    assert leave.done("documents", "--json").json == []
    assert "deleted" in leave.refused(1, "versions", "leave")


def test_delete_needs_a_yes(leave: Command) -> None:
    ran = leave.process("delete", "leave")
    assert ran.status == 2
    assert "--yes" in ran.err
    assert len(leave.done("versions", "leave", "--json").json) == 3


@pytest.mark.parametrize("arguments", [["nope"], ["leave", "--version", "9"]])
def test_delete_what_is_not_there(leave: Command, arguments: list[str]) -> None:
    assert "policy" in leave.refused(1, "delete", *arguments, "--yes")
