"""Keyword search: what is found, in which order, and that postings follow every change of a document."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.clock import SetClock
from tests.contract.samples import node
from tests.growth import grows_at_most
from tests.stores import SyncStore
from treestore import InvalidInput, NotFound, NotSearchable, ReadOnly
from treestore.search import analyzer
from treestore.search.postings import SEGMENT_NODES


def clinic() -> list[dict[str, Any]]:
    return [
        node("a", title="Physical therapy", summary="Visits of a physical therapist at home", text="Prior therapies count."),
        node("b", title="Codes", text="Report M54.5 with CPT 72148-26, see LCD-L34220 and the table of 1,250,000 rows."),
        node("c", "b", title="Über naïve Café-Besucher", text="Die Straße"),
        node("d", title="税収の見通し", text="2023年度の税収は増加した。"),
        node("e", title="Exclusions", prefix_summary="Acupuncture isn't covered", text=None),
        node("f", "e", title="Exclusions", text="Acupuncture; massage; not therapy"),
    ]


def found(store: SyncStore, query: str, **more: Any) -> list[str]:
    return [hit.node.node_id for hit in store.documents.search_nodes("p", query, **more)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("therapy", ["a", "f"]),  # more often, also as "therapies"
        ("THERAPIST's visiting", ["a"]),
        ("m54.5", ["b"]),
        ("M54", ["b"]),
        ("L34220", ["b"]),
        ("34220", ["b"]),
        ("lcd-l34220", ["b"]),
        ("72148", ["b"]),
        ("CPT 72148-26", ["b"]),
        ("7214", ["b"]),  # no node has it whole, so it stands for what begins with it
        ("1250000", ["b"]),
        ("1,250,000", ["b"]),
        ("125", ["b"]),
        ("cafe", ["c"]),
        ("CAFE\u0301 u\u0308ber", ["c"]),  # decomposed
        ("STRASSE", ["c"]),
        ("税収", ["d"]),
        ("年度", ["d"]),
        ("2023", ["d"]),
        ("acupuncture", ["e", "f"]),
        ("covered", ["e"]),
        ('"not" AND (massage OR *)', ["f"]),
        ("the of which is", []),
        ("", []),
        ("  \0\x07\x1b[31m \t", ["b"][:0]),
        ("zebra", []),
        ("zebra therapy", ["a", "f"]),
    ],
)
def test_words_are_found_whole_and_by_part(store: SyncStore, query: str, expected: list[str]) -> None:
    store.documents.store_document("p", "1", clinic())
    assert found(store, query) == expected


def test_a_hit_has_the_node_its_score_and_the_words_as_they_were_asked(store: SyncStore) -> None:
    store.documents.store_document("p", "1", clinic())
    hits = store.documents.search_nodes("p", "What THERAPIES, massages and 7214 Therapies?", limit=3)
    assert [(hit.node.node_id, hit.words) for hit in hits] == [
        ("f", ("THERAPIES", "massages")),
        ("b", ("7214",)),
        ("a", ("THERAPIES",)),
    ]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].node == store.documents.get_node("p", "f")
    assert all(hit.score > 0 for hit in hits)


def test_a_code_that_no_node_has_does_not_find_others_of_its_kind(store: SyncStore) -> None:
    tree = [
        node("a", title="Knee M17", text="see section 5 and M54.2, or LCD-L34220"),
        node("b", title="Filed 2024", text="injections2024, an iPhone15 and soft\u00adware"),
        node("c", title="Back pain M54"),
    ]
    store.documents.store_document("p", "1", tree)
    assert found(store, "LCD-L99999") == []
    hits = {
        query: [(hit.node.node_id, hit.words) for hit in store.documents.search_nodes("p", query)]
        for query in ("M54.5", "2024-11-20", "LCD", "lcd-l34220", "e-mail LCD-L3", "injection iphone", "software")
    }
    assert hits == {
        "M54.5": [("c", ("M54",)), ("a", ("M54",))],  # what M54.5 is a kind of; the words say what the node has
        "2024-11-20": [("b", ("2024",))],
        "LCD": [("a", ("LCD",))],
        "lcd-l34220": [("a", ("lcd-l34220",))],
        "e-mail LCD-L3": [("a", ("LCD-L3",))],  # the beginning of one that is there
        "injection iphone": [("b", ("injection", "iphone"))],
        "software": [("b", ("software",))],
    }


def test_joints_and_signs_without_letters_make_no_words(store: SyncStore) -> None:
    text = "Date of follow-up-____ visit; sign_off-__ _-a-b x.y-_ a-\u0301-s _'Therapies'_ Therapies-____ -- ' _ ."
    store.documents.store_document("p", "1", [node("a", title="Form", text=text)])
    hits = store.documents.search_nodes("p", "therapy follow-up sign-off visits")
    assert [hit.words for hit in hits] == [("therapy", "follow-up", "sign", "off", "visits")]
    assert store.check().problems == []


def test_long_words_and_runs_of_marks_take_no_long_time(store: SyncStore) -> None:
    versions = itertools.count()

    def work(count: int) -> Callable[[], object]:
        text = "-".join(["a.b"] * 2 * count) + " a" + "\u0301\u0316" * 5 * count
        text += " " + "税" * 3 * count + " " + "1,111," * count
        return lambda: store.documents.store_document("p", f"{next(versions)}", [node("a", text=text)])

    assert grows_at_most(25, work, 1_000, 10_000)
    assert found(store, "税") == ["a"]


def test_many_codes_at_once_take_no_long_time(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node(f"{at}", title=f"{100 + at % 900}{at:05}") for at in range(3000)])
    assert len(found(store, " ".join(str(100 + at) for at in range(25)), limit=5000)) == 100
    assert len(found(store, " ".join(str(100 + at) for at in range(900)), limit=5000)) == 100  # as many terms as are allowed
    assert grows_at_most(25, lambda count: lambda: found(store, " ".join(str(100 + at) for at in range(count))), 90, 900)


def test_equal_scores_come_in_document_order_and_a_limit_cuts_the_end(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node(f"n{at}", title="equal words") for at in (5, 3, 9, 1)])
    assert found(store, "equal") == ["n5", "n3", "n9", "n1"]
    assert found(store, "words equal", limit=2) == ["n5", "n3"]
    assert found(store, "equal", limit=1_000_000) == ["n5", "n3", "n9", "n1"]


def test_search_reads_the_version_in_effect_or_the_one_that_is_named(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", [node("a", text="old wording")], effective_date=datetime(2026, 1, 1, tzinfo=UTC))
    later = clock() + timedelta(days=30)
    store.documents.store_document("p", "2", [node("a", text="new wording")], effective_date=later)
    assert (found(store, "old"), found(store, "new")) == (["a"], [])
    assert (found(store, "old", version_id="2"), found(store, "new", version_id="2")) == ([], ["a"])
    with pytest.raises(NotFound, match="version 'x'"):
        store.documents.search_nodes("p", "old", version_id="x")
    with pytest.raises(NotFound, match="policy 'q'"):
        store.documents.search_nodes("q", "")


def test_postings_follow_replacement_amendment_and_deletion(store: SyncStore) -> None:
    store.documents.store_document("p", "1", clinic())
    store.documents.update_node("p", "b", text="nothing of the kind", summary="Lumbago")
    assert (found(store, "M54.5"), found(store, "lumbago")) == ([], ["b"])
    store.documents.update_node("p", "a", title="Home visits")
    assert found(store, "physical") == ["a"]  # still in its summary
    store.documents.update_node("p", "a", summary=None, text=None)
    assert (found(store, "physical"), found(store, "therapy"), found(store, "home")) == ([], ["f"], ["a"])
    store.documents.update_node("p", "f", title="", text="")
    assert found(store, "massage exclusions") == ["e"]
    store.documents.update_node("p", "f", validation_status="approved", metadata={"word": "zebra"})
    assert found(store, "zebra") == []
    store.documents.store_document("p", "1", [node("z", text="zebra")])
    assert (found(store, "zebra"), found(store, "lumbago home")) == (["z"], [])
    store.documents.delete_version("p", "1")
    with pytest.raises(NotFound, match="deleted"):
        store.documents.search_nodes("p", "zebra")
    store.documents.store_document("p", "1", clinic())
    assert (found(store, "zebra"), found(store, "lcd")) == ([], ["b"])


def test_many_amendments_leave_the_scores_of_a_document_stored_like_that(store: SyncStore) -> None:
    chance = random.Random(11)
    words = [f"word{at}" for at in range(60)]

    def some() -> str:
        return " ".join(chance.choices(words, k=chance.choice([0, 1, 3, 10, 40, 200])))

    tree = [node(f"{at}", title=some(), text=some()) for at in range(40)]
    store.documents.store_document("p", "1", tree)
    for _ in range(60):
        at = chance.randrange(len(tree))
        tree[at] |= {"title": some(), "text": some()}
        store.documents.update_node("p", tree[at]["node_id"], title=tree[at]["title"], text=tree[at]["text"])
    store.documents.store_document("fresh", "1", tree)
    for _ in range(30):
        query = " ".join(chance.choices(words, k=chance.choice([1, 2, 5])))
        amended, fresh = (
            [(hit.score, hit.node.node_id) for hit in store.documents.search_nodes(policy, query, limit=25)]
            for policy in ("p", "fresh")
        )
        assert amended == fresh


def test_a_document_of_several_segments(store: SyncStore) -> None:
    count = SEGMENT_NODES + 300
    tree = [node(f"{at}", title="heading" if at % 7 else "rare heading") for at in range(count)]
    tree[-1]["title"] = "heading 77123"
    store.documents.store_document("p", "1", tree)
    assert found(store, "rare", limit=2) == ["0", "7"]
    assert len(found(store, "rare", limit=count)) == -(-count // 7)
    assert found(store, "77123") == found(store, "7712") == [f"{count - 1}"]
    store.documents.update_node("p", f"{count - 2}", title="77123 77123")
    assert found(store, "77123") == [f"{count - 2}", f"{count - 1}"]


def test_a_search_in_a_document_stored_without_it_is_refused(store: SyncStore, clock: SetClock) -> None:
    stored = store.documents.store_document("p", "1", clinic(), searchable=False)
    with pytest.raises(NotSearchable, match="policy 'p' version '1' was stored without keyword search"):
        store.documents.search_nodes("p", "therapy")
    assert store.documents.search_documents("therapy") == []
    store.documents.update_node("p", "a", text="amended therapy")
    again = store.documents.store_document("p", "1", clinic(), searchable=False)
    assert (stored.outcome, again.outcome) == ("created", "replaced")
    ingested = store.versions.get("p", "1").ingested_at
    clock.advance(days=1)
    assert store.documents.store_document("p", "1", clinic()).outcome == "replaced"
    assert found(store, "therapy") == ["a", "f"]
    version = store.versions.get("p", "1")
    assert version.ingested_at == ingested  # the same content: it is not ingested again
    assert (version.analyzer, version.term_count > 0) == (analyzer.VERSION, True)
    assert store.documents.store_document("p", "1", clinic()).outcome == "unchanged"
    store.documents.store_document("p", "1", clinic(), searchable=False)
    with pytest.raises(NotSearchable):
        store.documents.search_nodes("p", "therapy")


def test_all_documents_are_one_corpus(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("b", "1", [node("1", text="shared rare"), node("2", text="shared")])
    store.documents.store_document("a", "1", [node("1", text="shared"), node("2", text="shared")])
    store.documents.store_document("c", "1", [node("1", text="shared rare")], searchable=False)
    store.documents.store_document("a", "2", [node("3", text="shared rare")], effective_date=clock() + timedelta(days=9))
    hits = store.documents.search_documents("rare shared", 10)
    assert [(hit.node.policy_id, hit.node.version_id, hit.node.node_id) for hit in hits] == [
        ("b", "1", "1"), ("a", "1", "1"), ("a", "1", "2"), ("b", "1", "2"),
    ]  # fmt: skip
    assert hits[1].score == hits[2].score == hits[3].score
    joined = [node("1", text="shared rare"), *(node(f"{at}", text="shared") for at in (2, 3, 4))]
    store.documents.store_document("joined", "1", joined)
    assert [hit.score for hit in store.documents.search_nodes("joined", "rare shared")] == [hit.score for hit in hits]
    clock.advance(days=10)
    assert store.documents.search_documents("rare", limit=1)[0].node.policy_id == "a"
    assert store.documents.search_documents("the of") == []


def test_a_snapshot_is_searched_as_it_was(steady_store: SyncStore) -> None:
    store = steady_store
    store.documents.store_document("p", "1", clinic())
    with store.snapshot() as snapshot:
        store.documents.update_node("p", "a", title="x", summary="x", text="x")
        store.documents.delete_version("p", "1")
        assert [hit.node.node_id for hit in snapshot.documents.search_nodes("p", "therapy")] == ["a", "f"]
        assert [hit.node.node_id for hit in snapshot.documents.search_documents("therapy")] == ["a", "f"]
        with pytest.raises(ReadOnly):
            snapshot.documents.store_document("p", "2", clinic())


@pytest.mark.parametrize("limit", [0, -1, 10**9, 1.5, "3", True, None])
def test_a_limit_is_a_number_of_results(store: SyncStore, limit: Any) -> None:
    store.documents.store_document("p", "1", clinic())
    with pytest.raises(InvalidInput) as refused:
        store.documents.search_nodes("p", "therapy", limit=limit)
    assert refused.value.field == "limit"
    with pytest.raises(InvalidInput) as refused:
        store.documents.search_documents("therapy", limit)
    assert refused.value.field == "limit"


@pytest.mark.parametrize("query", [None, 7, b"therapy", ["therapy"], "lone \ud800"])
def test_a_query_is_a_string(store: SyncStore, query: Any) -> None:
    store.documents.store_document("p", "1", clinic())
    with pytest.raises(InvalidInput, match=r"^query"):
        store.documents.search_nodes("p", query)


def test_a_query_of_very_many_words(store: SyncStore) -> None:
    store.documents.store_document("p", "1", clinic())
    assert found(store, "therapy " * 2_000) == ["a", "f"]
    with pytest.raises(InvalidInput, match="query: is 80000 characters long, at most 20000 are allowed"):
        store.documents.search_nodes("p", "therapy " * 10_000)
    others = ["".join(letters) for letters in itertools.islice(itertools.product("bcdfgkmpqrtvwxz", repeat=5), 2_000)]
    assert found(store, " ".join([*others[:999], "therapy"])) == ["a", "f"]
    with pytest.raises(InvalidInput, match="query: has 2000 different words and parts of words, at most 1000 are allowed"):
        store.documents.search_nodes("p", " ".join(others))


def test_searchable_is_true_or_false(store: SyncStore) -> None:
    with pytest.raises(InvalidInput, match="searchable: must be True or False, not 'no'"):
        store.documents.store_document("p", "1", clinic(), searchable="no")  # type: ignore[arg-type]


def test_an_empty_document_and_nodes_that_say_nothing(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [])
    assert found(store, "anything") == []
    assert store.documents.search_documents("anything 123") == []
    store.documents.store_document("p", "1", [node("a", title=""), node("b", title="the")])
    assert found(store, "anything the") == []
    store.documents.update_node("p", "a", title="anything")
    assert found(store, "anything") == ["a"]


def test_postings_of_another_analyzer_are_told_refused_and_made_anew(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(analyzer, "VERSION", "0 older")
        store.documents.store_document("p", "1", clinic())
        store.documents.store_document("p", "2", clinic()[:3])
        store.documents.store_document("gone", "1", clinic())
        store.documents.delete_document("gone")
    store.documents.store_document("new", "1", clinic())
    store.documents.store_document("not", "1", clinic(), searchable=False)
    with pytest.raises(NotSearchable, match=r"policy 'p' version '2' was made searchable by analyzer '0 older'.*reindex"):
        store.documents.search_nodes("p", "therapy")
    with pytest.raises(NotSearchable, match="reindex"):
        store.documents.search_documents("therapy")
    store.documents.update_node("p", "a", version_id="1", text="amended meanwhile")
    assert store.check().problems == []
    facts = store.versions.get("p", "1").facts
    assert store.documents.reindex() == 2
    assert store.documents.reindex() == 0
    assert found(store, "amended", version_id="1") == ["a"]
    assert found(store, "therapy") == ["a"]
    assert store.versions.get("p", "1").facts == facts
    with pytest.raises(NotSearchable, match="without keyword search"):
        store.documents.search_nodes("not", "therapy")
