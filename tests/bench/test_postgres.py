"""The contenders on PostgreSQL: their answers are checked as those of others, and nothing of them stays on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import treestore
from tests.postgres import databases as suite
from tests.postgres.server import Server
from treestore.backends.postgres import rows
from treestore.bench import cases, contenders, corpus
from treestore.bench.cases import CASES
from treestore.bench.contender import Place
from treestore.bench.contenders import databases
from treestore.bench.contenders.postgres import Postgres
from treestore.bench.contenders.treestores import OnPostgres
from treestore.bench.corpus import POLICY, VERSION, Corpus
from treestore.bench.run import Mismatch, run
from treestore.bench.session import bench
from treestore.errors import AccessDenied, InvalidInput, Unavailable

NODES = 40


@pytest.fixture
def url(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(cases, "MANY", 20)
    yield postgres_server.url("postgres")
    with postgres_server.connect() as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{databases.NAMED}%",)).fetchall()
    assert left == []


@pytest.fixture(scope="module")
def small() -> Corpus:
    made = corpus.make(NODES)
    made.searches.update({kind: questions[:6] for kind, questions in made.searches.items()})
    return made


def test_all_that_they_are_asked_is_answered_rightly(url: str, small: Corpus, tmp_path: Path) -> None:
    found = run(small, [OnPostgres, Postgres], tmp_path, 1, server=url)
    asked = {name: {entry.case.verb for entry in found.measured if name in entry.times} for name in found.contenders}
    assert asked["treestore on PostgreSQL"] == {case.verb for case in CASES}
    assert asked["PostgreSQL"] == asked["treestore on PostgreSQL"] - {"store_equal", "diff", "scan_page", "read_both"}


LIES: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "subtree": ("subtree", lambda found: found[:-1], "in the place of"),
    "search": ("search, 2 words: rare + common", lambda hits: hits[::-1], "gives node"),
    "ancestors": ("ancestors", lambda nodes: nodes[::-1], "gives"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_run_and_leaves_no_database(lie: str, url: str, small: Corpus, tmp_path: Path) -> None:
    name, told, said = LIES[lie]
    lied = next(case for case in CASES if case.name == name)

    class Liar(Postgres):
        name: ClassVar[str] = "Liar"

        def answer(self, verb: str, question: Any) -> Any:
            found = super().answer(verb, question)
            return told(found) if verb == lied.verb else found

    with pytest.raises(Mismatch, match=f"Liar, .*{said}"):
        run(small, [Liar], tmp_path, 1, server=url, cases=[lied])


def test_plain_sql_stores_the_rows_that_treestore_stores(
    postgres_server: Server, url: str, small: Corpus, tmp_path: Path
) -> None:
    columns = ", ".join(name for name in rows.NODE_COLUMNS if name != "updated_at")
    stored: dict[str, list[Any]] = {}
    for kind in (OnPostgres, Postgres):
        contender = kind(Place(tmp_path, url))
        try:
            contender.answer("store", small.tree)
            contender.answer("store_small", small.history[3])
            with postgres_server.connect(contender._database._name) as connection:
                query = f"SELECT {columns} FROM policy_nodes ORDER BY policy_id, ordinal"
                stored[kind.name] = connection.execute(query).fetchall()
        finally:
            contender.close()
    of_treestore, of_plain_sql = stored.values()
    assert len(of_treestore) == NODES + 1
    assert of_plain_sql == of_treestore


def test_what_plain_sql_stores_is_a_sound_store(url: str, small: Corpus, tmp_path: Path) -> None:
    contender = Postgres(Place(tmp_path, url))
    try:
        contender.answer("store", small.tree)
        with treestore.open_sync(contender._database.url) as store:
            assert len(store.documents.get_subtree(POLICY, version_id=VERSION)) == NODES
    finally:
        contender.close()


def test_a_server_that_can_not_be_used_is_refused_at_once(postgres_server: Server, url: str) -> None:
    with pytest.raises(InvalidInput, match="url: "):
        bench(2, 1, server="mysql://somewhere/else")
    with pytest.raises(Unavailable):
        bench(2, 1, server="postgresql://nobody@127.0.0.1:1/none")
    with postgres_server.connect() as connection:
        connection.execute("CREATE ROLE bench_without_rights LOGIN")
        try:
            with pytest.raises(AccessDenied, match="lacks a right"):
                bench(2, 1, server=url.replace("//postgres@", "//bench_without_rights@"))
        finally:
            connection.execute("DROP ROLE bench_without_rights")


def test_a_server_that_goes_away_is_told_by_an_error_of_treestore(small: Corpus, tmp_path: Path) -> None:
    class Kills(Postgres):
        def seconds(self, verb: str, questions: Any) -> float:
            server.kill()
            return super().seconds(verb, questions)

    with Server() as server, pytest.raises(Unavailable):
        run(small, [Kills], tmp_path, 1, server=server.url(), cases=[case for case in CASES if case.name == "children"])


def test_the_version_of_the_server_is_told(url: str) -> None:
    assert databases.check(url).partition(".")[0] == str(suite.server().installation.version)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ("postgresql://me@here/there", "postgresql://me@here/x"),
        ("postgresql://me:p%2Fw@[::1]:5433/?sslmode=disable", "postgresql://me:p%2Fw@[::1]:5433/x?sslmode=disable"),
        ("postgresql://me@/db?host=/a/b&port=5", "postgresql://me@/x?host=/a/b&port=5"),
        ("postgres://?dbname=there&user=me", "postgres:///x?user=me"),
    ],
)
def test_the_url_of_another_database(given: str, changed: str) -> None:
    assert databases.with_database(given, "x") == changed


def test_without_a_server_they_are_no_contenders() -> None:
    names = {kind.name for kind in contenders.available(server=True)} - {kind.name for kind in contenders.available()}
    assert names == {"PostgreSQL", "treestore on PostgreSQL"}
