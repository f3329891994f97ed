"""A run: every contender is checked before it is measured, and what it is said to be is what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from treestore.bench import contenders, corpus, report
from treestore.bench.cases import CASES, ON_POSTGRES, POSTGRES, SQLITE, TREESTORE, Bound, Case
from treestore.bench.contender import Contender, Hit, Place
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.contenders.treestores import NativeAsync, NativeSync
from treestore.bench.corpus import Corpus, PlainNode, Tree
from treestore.bench.run import Measured, Mismatch, Run, Times, run

NODES = 100


@pytest.fixture(scope="module")
def small() -> Corpus:
    return corpus.make(NODES)


def case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


Lie = Callable[[Any], Any]


def other_text(node: PlainNode) -> PlainNode:
    return msgspec.structs.replace(node, text="something else")


LIES: dict[str, tuple[str, Lie, str]] = {
    "another text": ("node", other_text, "gives a node '0"),
    "a text in an outline": ("node, outline", lambda nodes: [other_text(nodes[0])], "whose text is not that"),
    "one child too few": ("children", lambda nodes: nodes[:-1], " in the place of "),
    "children in another order": ("children", lambda nodes: nodes[::-1], "whose node_id is not that"),
    "no list": ("subtree", tuple, "gives (PlainNode("),
    "the whole tree, one node wrong": ("whole", lambda nodes: [*nodes[:-1], other_text(nodes[-1])], "whose text"),
    "a path from below": ("ancestors", lambda nodes: nodes[::-1], "gives"),
    "another version": ("as of", lambda version: msgspec.structs.replace(version, version_id="v000"), "PlainVersion"),
    "a page too many": ("page", lambda nodes: [*nodes, *nodes[-1:]], " in the place of "),
    "nothing found": ("search, 2 words: rare + rare", lambda hits: [], "finds 0 nodes in the place of "),
    "a wrong score": ("search, 2 words: rare + common", lambda hits: [Hit(h.node, h.score + 1e-6) for h in hits], "the score"),
    "a hit twice": ("search, 2 words: common + common", lambda hits: [hits[0], *hits[:-1]], "finds a node twice"),
    "the best last": ("search, 2 words: common + common", lambda hits: hits[::-1], "gives node"),
    "a changed hit": ("search, 2 words: rare + rare", lambda hits: [Hit(other_text(h.node), h.score) for h in hits], "whose"),
    "stored, but nothing said": ("small", lambda _: None, "gives None in the place of 'created'"),
    "replaced": ("store equal", lambda _: "replaced", "gives 'replaced' in the place of 'unchanged'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_run(lie: str, small: Corpus, tmp_path: Path) -> None:
    name, told, said = LIES[lie]
    lied = case(name)

    class Liar(Sqlite):
        name: ClassVar[str] = "Liar"

        def answer(self, verb: str, question: Any) -> Any:
            found = super().answer(verb, question)
            return told(found) if verb == lied.verb else found

    honest = [Sqlite] if lie == "another text" else []
    with pytest.raises(Mismatch, match=re.escape(f"Liar, {lied.what}: the answer to ")) as raised:
        run(small, [*honest, Liar], tmp_path, 1, cases=[lied])
    assert said in str(raised.value)


def test_what_a_search_finds_below_the_best_is_checked_too(small: Corpus, tmp_path: Path) -> None:
    class Liar(Sqlite):
        def answer(self, verb: str, question: Any) -> Any:
            found = super().answer(verb, question)
            return found[:10] if verb == "search_all" else found

    with pytest.raises(Mismatch, match="finds 10 nodes in the place of"):
        run(small, [Liar], tmp_path, 1, cases=[case("search, 2 words: common + common")])


def test_an_amendment_that_is_not_made_ends_the_run(small: Corpus, tmp_path: Path) -> None:
    class Forgets(Sqlite):
        def _amend(self, asked: tuple[str, str]) -> None:
            pass

    class Unindexed(Sqlite):
        def _amend(self, asked: tuple[str, str]) -> None:
            self._connection.execute("UPDATE node SET text = ?2 WHERE node_id = ?1 AND version = ?3", (*asked, *self._main))

    for kind, said in ((Forgets, "whose text is not that of"), (Unindexed, "gives 0 in the place of 1")):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        with pytest.raises(Mismatch, match=said):
            run(small, [kind], folder, 1, cases=[case("amend")])


def test_a_search_of_eight_words_is_checked(small: Corpus, tmp_path: Path) -> None:
    class Deaf(Sqlite):
        def _search(self, words: tuple[str, ...], limit: int) -> list[Hit]:
            return super()._search(words[:7], limit)

    assert {len(words) for words in small.searches["8 words, of which 3 common"]} == {8}
    with pytest.raises(Mismatch, match="Search, 8 words"):
        run(small, [Deaf], tmp_path, 1, cases=[case("search, 8 words, of which 3 common")])


def test_what_a_document_is_too_small_for_is_left_out(tmp_path: Path) -> None:
    for nodes, measured in ((2, ["node"]), (3, ["diff", "node"])):
        folder = tmp_path / str(nodes)
        folder.mkdir()
        found = run(corpus.make(nodes), [NativeSync], folder, 1, cases=[case("diff"), case("node")])
        assert [entry.case.name for entry in found.measured] == measured


def test_a_store_that_loses_a_node_is_found_out(small: Corpus, tmp_path: Path) -> None:
    class Loses(Sqlite):
        def insert(self, tree: Tree, *, searchable: bool = False) -> None:
            super().insert(msgspec.structs.replace(tree, nodes=tree.nodes[:-1]), searchable=searchable)

    with pytest.raises(Mismatch, match=f"what was stored gives {NODES - 1} in the place of {NODES}"):
        run(small, [Loses], tmp_path, 1, cases=[case("store")])


def test_each_contender_is_measured_in_each_round(small: Corpus, tmp_path: Path) -> None:
    order: list[str] = []

    class First(Sqlite):
        name: ClassVar[str] = "first"

        def seconds(self, verb: str, questions: Any) -> float:
            order.append(self.name)
            return float(len(questions))

    class Second(First):
        name: ClassVar[str] = "second"

    found = run(small, [First, Second], tmp_path, 3, cases=[case("children")])
    assert order == ["first", "second", "second", "first", "first", "second"]
    [measured] = found.measured
    assert {name: times.rounds for name, times in measured.times.items()} == {"first": (1.0,) * 3, "second": (1.0,) * 3}
    assert (found.nodes, found.rounds, found.contenders) == (NODES, 3, ("first", "second"))


def test_a_contender_is_not_asked_what_it_has_no_verb_for(small: Corpus, tmp_path: Path) -> None:
    found = run(small, [Sqlite], tmp_path, 1, cases=[case("diff"), case("node")])
    assert [measured.case.name for measured in found.measured] == ["node"]


@pytest.mark.parametrize("kind", [NativeSync, NativeAsync])
def test_treestore_has_every_verb(kind: type[Contender], tmp_path: Path) -> None:
    opened = kind(Place(tmp_path))
    opened.close()
    assert opened.verbs.keys() == {case.verb for case in CASES} | {"search_all"}


def test_without_lmdb_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LMDB" in [kind.name for kind in contenders.available()]
    assert contenders.left_out() is None
    monkeypatch.setitem(sys.modules, "lmdb", None)
    monkeypatch.delitem(sys.modules, "treestore.bench.contenders.lmdb")
    assert [kind.name for kind in contenders.available()] == ["treestore", "treestore async", "SQLite", "the limit"]
    assert contenders.left_out() == "LMDB is left out: Python's lmdb is not installed (pip install lmdb)"


def test_importing_treestore_does_not_load_the_benchmark() -> None:
    report = "import sys, treestore, treestore.cli.app; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert [name for name in ran.stdout.split() if name.startswith(("treestore.bench", "sqlite3", "lmdb"))] == []


# --- what is said of it --------------------------------------------------------------------------------------------------


def measured(times: dict[str, float], *bounds: Bound, name: str = "case") -> Measured:
    made = Case(name, f"What {name} is", "node", lambda corpus, label: [], bounds=bounds)
    return Measured(made, {who: Times((seconds * 1.2, seconds * 0.8, seconds)) for who, seconds in times.items()})


def made_run(*cases: Measured) -> Run:
    return Run(1234, 3, (TREESTORE, SQLITE), cases)


def test_aims_are_judged() -> None:
    entry = measured(
        {TREESTORE: 2e-6, SQLITE: 5e-6},
        Bound(2.0, SQLITE, nodes=1234),
        Bound(3.0, SQLITE, nodes=None),
        Bound(seconds=2e-6, nodes=1234),
        Bound(seconds=1e-6, nodes=1234),
        Bound(1.0, "nobody"),
        Bound(10.0, case="other", called="the other way", nodes=1234),
        Bound(3.0, SQLITE),
        Bound(seconds=2e-3),
    )
    made = made_run(entry, measured({TREESTORE: 2.1e-5}, name="other"))
    assert [str(one) for one in report.judged(made, entry)] == [
        "2x SQLite: met (2.50x)",
        "3x SQLite: missed (2.50x)",
        "at most 2 µs: met (2.00 µs)",
        "at most 1 µs: missed (2.00 µs)",
        "10x the other way: met (10.5x)",
        "3x SQLite at 50,000 nodes (here 2.50x)",
        "at most 2 ms at 50,000 nodes (here 2.00 µs)",
    ]
    lines = report.aims(made)
    assert lines[0] == "What case is  2x SQLite: met (2.50x)"
    assert lines[-1] == "3 of 5 aims met, 2 are set for other documents"
    aims = report.as_data(made)["cases"][0]["aims"]
    assert aims[0] == {"aim": "2x SQLite", "nodes": 1234, "times": pytest.approx(2.5), "met": True}
    assert (aims[-1]["met"], aims[-1]["nodes"]) == (None, 50_000)


def test_every_aim_of_another_case_says_which() -> None:
    for bound in (bound for case in CASES for bound in case.bounds if bound.case is not None):
        assert bound.called
        assert bound.case in {case.name for case in CASES}
    assert str(case("page").bounds[0]) == "50x reading the whole tree"


def test_a_table_says_times_spread_and_ratio() -> None:
    first = measured({TREESTORE: 2e-6, SQLITE: 5e-3}, Bound(2.0, SQLITE, nodes=None))
    made = made_run(first, measured({TREESTORE: 0.5}, name="other"))
    headings, rows = report.table(made, aims=True)
    assert headings == ["WHAT", "VS SQLITE", "TREESTORE", "SQLITE", "AIM"]
    assert rows == [
        ["What case is", "2500x", "2.00 µs ±10%", "5.00 ms ±10%", "2x SQLite: met (2500x)"],
        ["What other is", "-", "500 ms ±10%", "-", "-"],
    ]
    assert report.short_tables(made) == [(headings[:-1], [[cell.removesuffix(" ±10%") for cell in row[:-1]] for row in rows])]
    assert [line.partition(":")[0] for line in report.explained(made)] == ["VS SQLITE"]
    lines = report.markdown(made).splitlines()
    assert lines[:2] == ["|  | vs SQLite | treestore | SQLite | aim |", "| --- | ---: | ---: | ---: | --- |"]
    assert lines[3] == "| What other is | - | 500 ms ±10% | - | - |"
    assert report.made_of(made).startswith("1,234 nodes, medians of 3 rounds; treestore 0")
    assert report.sizes(Run(1, 1, (), ())) == "1 node, 1 round"


def test_a_run_with_postgresql_says_how_both_stores_compare_with_plain_sql() -> None:
    times = {TREESTORE: 1e-3, SQLITE: 2e-3, ON_POSTGRES: 4e-3, POSTGRES: 3e-3}
    entry = measured(times, Bound(2.0, POSTGRES, nodes=None), Bound(0.8, POSTGRES, of=ON_POSTGRES, nodes=None))
    run = Run(1234, 3, tuple(times), (entry, measured({TREESTORE: 0.5}, name="other")), "15.1")
    headings, rows = report.table(run)
    assert headings == ["WHAT", "VS SQLITE", "VS POSTGRESQL", *(name.upper() for name in times)]
    assert rows[0][1:3] == ["2.00x", "3.00x / 0.75x"]
    assert rows[1][1:3] == ["-", "-"]
    assert report.aims(run)[:2] == [
        "What case is  2x PostgreSQL: met (3.00x)",
        "What case is  treestore on PostgreSQL: 0.8x PostgreSQL: missed (0.75x)",
    ]
    _, (short, lines) = report.short_tables(run)
    assert short == ["WHAT", "VS POSTGRESQL", "TREESTORE", "POSTGRESQL"]
    assert lines == [["What case is", "3.00x / 0.75x", "1.00 ms", "3.00 ms"]]
    assert [line.partition(":")[0] for line in report.explained(run)] == ["VS SQLITE", "VS POSTGRESQL"]
    assert report.markdown(run).startswith("|  | vs SQLite | vs PostgreSQL | treestore | SQLite | treestore on PostgreSQL | ")
    assert "PostgreSQL 15.1, asyncpg " in report.made_of(run)
    as_fast = report.as_data(run)["cases"][0]["times_as_fast"]
    assert as_fast[POSTGRES] == {TREESTORE: pytest.approx(3.0), ON_POSTGRES: pytest.approx(0.75)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3e-9, "3.00 ns"), (9.994e-6, "9.99 µs"), (9.996e-6, "10.0 µs"), (9.99e-4, "999 µs"), (0.012, "12.0 ms"), (75, "75.0 s")],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert report.time_text(seconds) == text
