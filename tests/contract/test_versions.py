"""Versions in time: which one is in effect on a date, as known when; and what is appended to their facts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from tests.clock import START, SetClock
from tests.contract.samples import manual, node
from tests.stores import SyncStore
from treestore import NotFound

FIRST, SECOND, THIRD = (datetime(2026, month, 1, tzinfo=UTC) for month in (4, 6, 8))
MICROSECOND, DAY = timedelta(microseconds=1), timedelta(days=1)


@pytest.fixture
def revised(store: SyncStore, clock: SetClock) -> SyncStore:
    """Three revisions of policy "p", ingested a day apart, in effect from April, June and August."""
    for version_id, effective in (("1", FIRST), ("2", SECOND), ("3", THIRD)):
        store.documents.store_document("p", version_id, [node("a", text=version_id)], effective_date=effective)
        clock.advance(days=1)
    return store


def as_of(store: SyncStore, at: date, known_at: date | None = None) -> str | None:
    try:
        return store.versions.get_version_as_of("p", at, known_at).version_id
    except NotFound:
        return None


def test_the_day_before_on_and_after_each_effective_date(revised: SyncStore) -> None:
    for start, before, after in ((FIRST, None, "1"), (SECOND, "1", "2"), (THIRD, "2", "3")):
        assert as_of(revised, start.date() - DAY) == before
        assert as_of(revised, start.date()) == after
        assert as_of(revised, start.date() + DAY) == after
        assert as_of(revised, start - MICROSECOND) == before
        assert as_of(revised, start) == after
        assert as_of(revised, start + MICROSECOND) == after


def test_a_date_asks_for_the_end_of_that_day(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=FIRST)
    store.documents.store_document("p", "2", manual(), effective_date=FIRST.replace(hour=23, minute=59, second=59))
    assert as_of(store, FIRST.date()) == "2"
    assert as_of(store, FIRST) == "1"


def test_naive_datetimes_mean_utc_and_others_are_converted(revised: SyncStore) -> None:
    assert as_of(revised, FIRST.replace(tzinfo=None)) == "1"
    assert as_of(revised, (FIRST - MICROSECOND).replace(tzinfo=None)) is None
    east = timezone(timedelta(hours=5, minutes=30))
    assert as_of(revised, datetime(2026, 4, 1, 5, 30, tzinfo=east)) == "1"
    assert as_of(revised, datetime(2026, 4, 1, 5, 29, 59, tzinfo=east)) is None
    stored = revised.versions.set_effective_date("p", "1", datetime(2026, 4, 1, 5, 30, tzinfo=east))
    assert stored.effective_date == FIRST


def test_without_an_effective_date_a_version_is_in_effect_from_its_ingestion(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    assert as_of(store, START - MICROSECOND) is None
    assert as_of(store, START) == "1"
    clock.advance(days=1)
    store.documents.store_document("p", "2", manual())
    assert as_of(store, START + DAY - MICROSECOND) == "1"
    assert as_of(store, START + DAY) == "2"
    clock.advance(days=1)
    store.documents.store_document("p", "1", [node("new")])
    assert as_of(store, START + 2 * DAY) == "1", "ingested again, so in effect from then"
    assert as_of(store, START) is None, "what it held before is gone"


def test_of_equal_dates_the_later_ingested_wins(store: SyncStore, clock: SetClock) -> None:
    for version_id in ("b", "c", "a"):
        store.documents.store_document("p", version_id, manual(), effective_date=FIRST)
    assert as_of(store, FIRST) == "a", "the last one, although the clock stood still"
    clock.advance(seconds=1)
    store.documents.store_document("p", "0", manual(), effective_date=FIRST)
    assert as_of(store, FIRST) == "0"
    assert store.versions.latest("p").version_id == "0"


def test_the_order_of_ingestion_and_of_effect_may_differ(store: SyncStore, clock: SetClock) -> None:
    for version_id, effective in (("late", THIRD), ("early", FIRST), ("middle", SECOND)):
        store.documents.store_document("p", version_id, manual(), effective_date=effective)
        clock.advance(days=1)
    assert [as_of(store, at) for at in (FIRST - DAY, FIRST, SECOND, THIRD)] == [None, "early", "middle", "late"]
    assert store.versions.latest("p").version_id == "middle"
    assert [version.version_id for version in store.versions.list("p")] == ["late", "early", "middle"]


def test_as_known_earlier_only_what_was_ingested_by_then_counts(revised: SyncStore) -> None:
    future = THIRD + DAY
    assert as_of(revised, future, START - MICROSECOND) is None
    assert as_of(revised, future, START) == "1"
    assert as_of(revised, future, START + DAY - MICROSECOND) == "1"
    assert as_of(revised, future, START + DAY) == "2"
    assert as_of(revised, future, (START + 2 * DAY).date()) == "3", "a date: as known at the end of that day"
    assert as_of(revised, future, (START + DAY).date()) == "2"
    assert as_of(revised, FIRST - DAY, START + 9 * DAY) is None


def test_as_known_earlier_with_the_effective_date_known_then(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=FIRST)
    ingested = clock.advance(days=1)
    store.documents.store_document("p", "2", manual(), effective_date=THIRD)
    corrected = clock.advance(days=10)
    changed = store.versions.set_effective_date("p", "2", SECOND)

    assert (changed.effective_date, changed.updated_at, changed.ingested_at) == (SECOND, corrected, ingested)
    for known_at, in_july in ((ingested, "1"), (corrected - MICROSECOND, "1"), (corrected, "2"), (None, "2")):
        assert as_of(store, datetime(2026, 7, 1, tzinfo=UTC), known_at) == in_july
    assert as_of(store, THIRD, ingested) == "2"
    assert [(fact.kind, fact.recorded_at, fact.effective_date) for fact in changed.facts] == [
        ("ingested", ingested, None),
        ("effective", ingested, THIRD),
        ("effective", corrected, SECOND),
    ]
    assert store.versions.get("p", "2") == changed


def test_a_date_learned_later_was_not_known_at_first(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    learned = clock.advance(days=1)
    store.versions.set_effective_date("p", "1", date(2020, 1, 1))
    in_2021 = date(2021, 1, 1)
    assert as_of(store, in_2021) == "1"
    assert as_of(store, in_2021, learned) == "1"
    assert as_of(store, in_2021, learned - MICROSECOND) is None
    assert as_of(store, START, START) == "1"


def test_as_known_before_a_replacement_a_version_is_known_by_its_first_ingestion(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    replaced = clock.advance(days=5)
    store.documents.store_document("p", "1", [node("new")])
    assert as_of(store, START + DAY, START + DAY) == "1"
    assert as_of(store, START + DAY, replaced) is None
    assert as_of(store, replaced, replaced) == "1"


def test_deleted_versions_are_never_in_effect_and_revived_ones_only_as_known_since(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=FIRST)
    store.documents.store_document("p", "2", manual(), effective_date=SECOND)
    deleted = clock.advance(days=1)
    store.documents.delete_version("p", "2")
    assert as_of(store, THIRD) == "1"
    assert as_of(store, THIRD, START) == "1", "its content is gone, whatever was known"
    revived = clock.advance(days=1)
    store.documents.store_document("p", "2", manual(), effective_date=THIRD)
    assert [as_of(store, at) for at in (SECOND, THIRD)] == ["1", "2"]
    assert as_of(store, THIRD, revived) == "2"
    assert as_of(store, THIRD, revived - MICROSECOND) == "1"
    assert as_of(store, THIRD, deleted) == "1"
    assert as_of(store, SECOND, deleted - MICROSECOND) == "2"


def test_the_date_of_a_deleted_version_is_forgotten_with_it(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=FIRST)
    clock.now = SECOND
    store.documents.delete_version("p", "1")
    revived = clock.advance(days=1)
    store.documents.store_document("p", "1", manual())
    for known_at in (None, revived, revived + DAY):
        assert as_of(store, revived - MICROSECOND, known_at) is None
        assert as_of(store, revived, known_at) == "1"
    assert as_of(store, FIRST, FIRST) == "1", "as known before the deletion"


def test_nothing_in_effect_says_so(revised: SyncStore) -> None:
    with pytest.raises(NotFound, match=r"^policy 'p' has no version in effect at 2026-03-31T23:59:59\.999999\+00:00$"):
        revised.versions.get_version_as_of("p", FIRST.date() - DAY)
    with pytest.raises(NotFound, match=r"in effect at 2026-04-01T00:00:00\+00:00, as known at 2020-01-01T00:00:00\+00:00$"):
        revised.versions.get_version_as_of("p", FIRST, datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(NotFound, match=r"^policy 'q' does not exist$"):
        revised.versions.get_version_as_of("q", FIRST)


def test_the_date_that_is_known_already_writes_nothing(revised: SyncStore, clock: SetClock) -> None:
    before = revised.versions.get("p", "1")
    clock.advance(days=1)
    assert revised.versions.set_effective_date("p", "1", FIRST.date()) == before
    assert revised.versions.get("p", "1") == before


def test_facts_are_appended_and_never_overwritten(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    seen = store.versions.get("p", "1").facts
    for days in range(20):
        clock.advance(hours=1)
        store.versions.set_effective_date("p", "1", FIRST + days * DAY)
        facts = store.versions.get("p", "1").facts
        assert (facts[: len(seen)], len(facts)) == (seen, len(seen) + 1)
        seen = facts


def test_a_clock_that_goes_back_does_not_make_a_later_ingestion_an_earlier_one(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "b", manual())
    clock.advance(days=-1)
    for number, version_id in enumerate(("c", "a", "b"), start=1):
        store.documents.store_document("p", version_id, [node(f"of {number}")])
        assert store.versions.latest("p").version_id == version_id
        assert store.versions.get("p", version_id).ingested_at == START + number * MICROSECOND
        assert as_of(store, START + DAY) == version_id
    assert [version.version_id for version in store.versions.list("p")] == ["c", "a", "b"]
    store.documents.store_document("q", "1", manual())
    assert store.versions.latest("q").ingested_at == START - DAY, "each policy has a time of its own"


def test_what_was_just_stored_is_read_even_where_the_clock_stands(store: SyncStore) -> None:
    for version_id in ("2", "1", "3", "0"):
        store.documents.store_document("p", version_id, [node(version_id)])
        assert store.documents.get_document("p").version.version_id == version_id
        assert store.documents.get_node("p", version_id).node_id == version_id
        assert store.documents.list_documents()[0].version.version_id == version_id


def test_a_version_stored_while_the_clock_is_behind_a_deleted_one(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.delete_version("p", "1")
    clock.advance(days=-1)
    store.documents.store_document("p", "2", manual())
    assert store.versions.get("p", "2").ingested_at > START
    store.documents.store_document("p", "1", manual())
    assert store.versions.latest("p").version_id == "1"


def test_a_clock_that_goes_back_does_not_turn_a_version_back(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    clock.advance(days=-1)
    store.versions.set_effective_date("p", "1", FIRST)
    store.documents.store_document("p", "1", [node("new")])
    version = store.versions.get("p", "1")
    assert version.updated_at == version.ingested_at == START + MICROSECOND
    assert [fact.recorded_at for fact in version.facts] == [START, START, START + MICROSECOND]


def test_list_latest_and_get(revised: SyncStore, clock: SetClock) -> None:
    assert [version.version_id for version in revised.versions.list("p")] == ["1", "2", "3"]
    assert revised.versions.latest("p") == revised.versions.get("p", "3")
    revised.documents.store_document("p", "1", [node("new")])
    assert [version.version_id for version in revised.versions.list("p")] == ["2", "3", "1"]
    assert revised.versions.latest("p").version_id == "1"
    clock.advance(days=1)
    revised.documents.delete_version("p", "1")
    assert [version.version_id for version in revised.versions.list("p")] == ["2", "3"]
    assert [version.version_id for version in revised.versions.list("p", include_deleted=True)] == ["2", "3", "1"]
    assert revised.versions.latest("p").version_id == "3"


def test_what_is_missing_is_named(revised: SyncStore, clock: SetClock) -> None:
    revised.documents.store_document("q", "1", manual())
    clock.now = START + 9 * DAY
    revised.documents.delete_document("q")
    deleted = r"was deleted at 2026-03-10T12:00:00\+00:00$"
    versions = revised.versions
    calls: list[tuple[str, Callable[[], object]]] = [
        (r"^policy 'none' does not exist$", lambda: versions.get("none", "1")),
        (r"^policy 'none' does not exist$", lambda: versions.latest("none")),
        (r"^policy 'none' does not exist$", lambda: versions.list("none")),
        (r"^policy 'none' does not exist$", lambda: versions.set_effective_date("none", "1", FIRST)),
        (r"^policy 'p' has no version '4'$", lambda: versions.get("p", "4")),
        (r"^policy 'p' has no version '4'$", lambda: versions.set_effective_date("p", "4", FIRST)),
        (rf"^policy 'q' version '1' {deleted}", lambda: versions.get("q", "1")),
        (rf"^policy 'q' version '1' {deleted}", lambda: versions.set_effective_date("q", "1", FIRST)),
        (rf"^policy 'q' {deleted}", lambda: versions.list("q")),
        (rf"^policy 'q' {deleted}", lambda: versions.latest("q")),
        (rf"^policy 'q' {deleted}", lambda: versions.get_version_as_of("q", THIRD)),
    ]
    for message, call in calls:
        with pytest.raises(NotFound, match=message):
            call()
