"""Opening and closing stores, and what their two faces have in common."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import treestore
from tests.clock import SetClock
from tests.contract.samples import manual, node
from treestore import AsyncDriver, Closed, InvalidInput, NoStore, NotAStore, NotSupported, Settings, TreeStore, Unavailable
from treestore.repositories.documents import Documents
from treestore.repositories.plan import verb
from treestore.repositories.versions import Versions

VERBS: list[Callable[[Any], Any]] = [
    lambda store: store.documents.store_document("p", "1", manual()),
    lambda store: store.documents.get_document("p"),
    lambda store: store.documents.list_documents(),
    lambda store: store.documents.delete_version("p", "1"),
    lambda store: store.documents.delete_document("p"),
    lambda store: store.documents.get_node("p", "a"),
    lambda store: store.documents.get_nodes("p", []),
    lambda store: store.documents.get_outlines("p", ["a"]),
    lambda store: store.documents.get_children("p"),
    lambda store: store.documents.get_subtree("p"),
    lambda store: store.documents.get_outline("p"),
    lambda store: store.documents.get_ancestor_path("p", "a"),
    lambda store: store.documents.update_node("p", "a", title="x"),
    lambda store: store.documents.search_nodes("p", "word"),
    lambda store: store.documents.search_documents("word"),
    lambda store: store.documents.reindex(),
    lambda store: store.documents.get_nodes_by_page("p", 1),
    lambda store: store.documents.get_nodes_by_pages("p", 1, 2),
    lambda store: store.documents.get_page_text("p", 1),
    lambda store: store.documents.get_page_texts("p"),
    lambda store: store.versions.get("p", "1"),
    lambda store: store.versions.list("p"),
    lambda store: store.versions.latest("p"),
    lambda store: store.versions.get_version_as_of("p", date(2026, 1, 1)),
    lambda store: store.versions.diff("p", "1", "2"),
    lambda store: store.versions.temporal_lookup("p", date(2026, 1, 1)),
    lambda store: store.versions.set_effective_date("p", "1", date(2026, 1, 1)),
    lambda store: store.stats(),
    lambda store: store.check(),
    lambda store: store.compact(),
    lambda store: store.backup("somewhere"),
]


@pytest.fixture(params=["memory", "btree"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"btree:///{tmp_path / 'store'}"


def test_every_verb_of_a_closed_store_says_that_it_is_closed(url: str) -> None:
    with treestore.open_sync(url) as store:
        store.documents.store_document("p", "1", manual())
        view = store.snapshot()
    for call in VERBS:
        with pytest.raises(Closed):
            call(store)
    with pytest.raises(Closed):
        view.documents.get_node("p", "a")
    with pytest.raises(Closed):
        store.snapshot()
    store.close()


async def test_every_verb_of_a_closed_asynchronous_store_says_so_too(url: str) -> None:
    async with treestore.open(url) as store:
        await store.documents.store_document("p", "1", manual())
    for call in VERBS:
        with pytest.raises(Closed):
            await call(store)
    with pytest.raises(Closed):
        await store.snapshot()
    await store.close()


def test_the_list_of_verbs_above_is_whole() -> None:
    names = {name for kind in (Documents, Versions, TreeStore) for name in dir(kind) if isinstance(getattr(kind, name), verb)}
    called = {name for call in VERBS for name in call.__code__.co_names} - {"documents", "versions", "date", "manual"}
    assert called == names


def test_both_faces_have_one_signature_and_one_docstring() -> None:
    async def opened() -> TreeStore[AsyncDriver]:
        return await treestore.open("memory://")

    later = asyncio.run(opened())
    with treestore.open_sync("memory://") as now:
        for repository in ("documents", "versions"):
            for name in dir(type(getattr(now, repository))):
                if isinstance(getattr(type(getattr(now, repository)), name), verb):
                    one, other = getattr(getattr(now, repository), name), getattr(getattr(later, repository), name)
                    assert inspect.signature(one) == inspect.signature(other)
                    assert one.__doc__ and one.__doc__ == other.__doc__
    asyncio.run(_close(later))


async def _close(store: TreeStore[AsyncDriver]) -> None:
    await store.close()


async def test_an_asynchronous_store_is_awaited_or_entered(url: str) -> None:
    store = await treestore.open(url)
    assert (await store.documents.store_document("p", "1", manual())).outcome == "created"
    view = await store.snapshot()
    assert len((await view.documents.get_document("p")).nodes) == 7
    await view.close()
    await store.close()
    with pytest.raises(TypeError, match="async with"), store:  # type: ignore[misc]
        pass


async def test_an_error_inside_the_block_closes_the_store(url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with treestore.open(url) as store:
            raise ZeroDivisionError
    with pytest.raises(Closed):
        await store.stats()
    with pytest.raises(ZeroDivisionError), treestore.open_sync(url) as again:
        raise ZeroDivisionError
    with pytest.raises(Closed):
        again.stats()


def test_each_memory_store_is_new_and_empty() -> None:
    with treestore.open_sync("memory://") as one, treestore.open_sync("memory://") as other:
        one.documents.store_document("p", "1", manual())
        assert other.documents.list_documents() == []


def test_a_folder_is_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, folder in (
        ("btree:///here/below", tmp_path / "here" / "below"),
        (f"btree:///{tmp_path}/absolute", tmp_path / "absolute"),
        ("btree:///a b%20c?x=1#y", tmp_path / "a b%20c?x=1#y"),
        ("btree:///é", tmp_path / "é"),
    ):
        folder.parent.mkdir(exist_ok=True)
        with treestore.open_sync(url) as store:
            store.documents.store_document("p", "1", manual())
        assert (folder / "data").exists()
        with treestore.open_sync(f"btree:///{folder}", create=False) as store:
            assert store.documents.get_node("p", "a").text == "text of a"


def test_without_a_url_the_settings_say_which_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with treestore.open_sync() as store:
        store.documents.store_document("p", "1", manual())
    assert (tmp_path / "treestore-data" / "data").exists()
    monkeypatch.setenv("TREESTORE_URL", "btree:///other")
    with treestore.open_sync() as store:
        assert store.documents.list_documents() == []
    assert (tmp_path / "other" / "data").exists()
    with treestore.open_sync(settings=Settings(url="memory://")) as store:
        assert store.stats().size_bytes == 0
    with treestore.open_sync("btree:///treestore-data", settings=Settings(url="memory://")) as store:
        assert store.documents.get_node("p", "a").title == "title of a"
    monkeypatch.setenv("TREESTORE_CACHE_SIZE_MB", "x")
    with pytest.raises(InvalidInput, match="TREESTORE_CACHE_SIZE_MB"):
        treestore.open_sync("memory://")
    with pytest.raises(InvalidInput, match="TREESTORE_CACHE_SIZE_MB"):
        treestore.open("memory://")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "folder",
        "/folder",
        "btree",
        "btree:",
        "btree:/folder",
        "btree://",
        "btree:///",
        "btree://folder",
        "btree://host/folder",
        "BTREE:///folder",
        "memory:",
        "memory:///",
        "memory://name",
        "file:///folder",
        "mysql://user:hunter2@host/db",
        "https://user:hunter2@host/?password=hunter2",
        "btree:///a\0b",
        "btree:///\udcff",
        "x" * 10_000,
        None.__class__,
        7,
    ],
    ids=repr,
)
def test_other_urls_are_refused_in_one_line_that_says_what_is_supported(
    url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for opening in (treestore.open_sync, treestore.open):
        with pytest.raises(InvalidInput) as caught:
            opening(url)
        message = str(caught.value)
        assert message.startswith("url: ") and message.isprintable() and len(message) < 250
        assert "hunter2" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_there_is_created_only_on_request(tmp_path: Path) -> None:
    url = f"btree:///{tmp_path / 'none'}"
    with pytest.raises(NotAStore, match="none"):
        treestore.open_sync(url, create=False)
    assert list(tmp_path.iterdir()) == []
    treestore.open_sync(url).close()
    treestore.open_sync(url, create=False).close()


async def test_a_caller_cancelled_while_opening_leaves_no_lock_behind(tmp_path: Path) -> None:
    url = f"btree:///{tmp_path / 'store'}"
    opening = asyncio.create_task(_opened(url))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for _ in range(100):
        await asyncio.sleep(0.05)
        try:
            async with treestore.open(url) as store:
                assert await store.documents.list_documents() == []
            return
        except Unavailable:
            continue
    pytest.fail("the store is still locked")


async def _opened(url: str) -> TreeStore[AsyncDriver]:
    return await treestore.open(url)


def test_a_memory_store_refuses_a_backup_and_has_nothing_to_compact(tmp_path: Path) -> None:
    with treestore.open_sync("memory://") as store:
        with pytest.raises(NotSupported, match="no folder to back up"):
            store.backup(tmp_path / "copy")
        assert store.compact() == 0
        bad: Any = 5
        for folder in ("a\0b", bad):
            with pytest.raises(InvalidInput, match="folder"):
                store.backup(folder)


def test_a_backup_is_a_store_and_compaction_changes_nothing(tmp_path: Path) -> None:
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        for version_id in ("1", "2", "3"):
            store.documents.store_document("p", version_id, [node("a", text=version_id * 50_000), *manual()[1:5]])
        store.documents.delete_version("p", "2")
        before = store.documents.get_document("p")
        assert store.backup(tmp_path / "copy") > 0
        store.documents.store_document("p", "4", manual())
        assert store.compact() >= 0
        assert store.documents.get_document("p", version_id="3") == before
        assert store.check().problems == []
    with treestore.open_sync(f"btree:///{tmp_path / 'copy'}", create=False) as copy:
        assert copy.documents.get_document("p") == before
        assert [version.version_id for version in copy.versions.list("p")] == ["1", "3"]
        assert copy.check().problems == []


def test_the_clock_may_be_naive_and_must_give_datetimes(clock: SetClock) -> None:
    moment = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - that is what is tested
    with treestore.open_sync("memory://", clock=lambda: moment) as store:
        store.documents.store_document("p", "1", manual())
        assert store.versions.get("p", "1").ingested_at == moment.replace(tzinfo=UTC)
    wrong: Any = lambda: 5  # noqa: E731
    with treestore.open_sync("memory://", clock=wrong) as store, pytest.raises(InvalidInput, match="clock"):
        store.documents.store_document("p", "1", manual())


def test_without_a_clock_the_time_is_now() -> None:
    with treestore.open_sync("memory://") as store:
        before = datetime.now(UTC)
        store.documents.store_document("p", "1", manual())
        assert before <= store.versions.get("p", "1").ingested_at <= datetime.now(UTC)


def test_importing_treestore_loads_no_store_and_no_command_line() -> None:
    script = """
        import sys, treestore
        loaded = {"typer", "rich", "sqlalchemy", "treestore.cli", "treestore.backends.btree", "treestore.backends.memory"}
        print(sorted(loaded & set(sys.modules)))
        treestore.open_sync("memory://").close()
        print("treestore.backends.btree" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\nFalse\n"


def test_settings_that_are_none_are_refused() -> None:
    wrong: Any = {"url": "memory://"}
    for opening in (treestore.open_sync, treestore.open):
        with pytest.raises(InvalidInput, match=r"^settings: must be treestore.Settings\(...\), not a dict$"):
            opening("memory://", settings=wrong)


def test_a_store_that_is_not_opened_yet_says_how_to_open_it() -> None:
    opening: Any = treestore.open("memory://")
    with pytest.raises(AttributeError, match=r"'documents'.*async with treestore.open\(...\)"):
        _ = opening.documents


def test_a_closed_store_can_not_be_entered_again(url: str) -> None:
    with treestore.open_sync(url) as store, store.snapshot() as view:
        pass
    for closed in (store, view):
        with pytest.raises(Closed), closed:
            pass


@pytest.mark.parametrize("inside", [".", "copy", "wal", "wal/copy", "../link/copy", "../store"])
def test_a_backup_into_the_store_itself_is_refused(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "store"
    (tmp_path / "link").symlink_to(folder)
    with treestore.open_sync(f"btree:///{folder}") as store:
        before = sorted(folder.rglob("*"))
        with pytest.raises(InvalidInput, match=r"^folder: .* lies in the folder of the store itself") as caught:
            store.backup(f"{folder}/{inside}")
        assert caught.value.field == "folder"
        assert sorted(folder.rglob("*")) == before
        assert store.folder == str(folder)
        assert store.backup(tmp_path / "store2") > 0, "a name that begins alike is another folder"


def test_the_place_of_a_store_does_not_move_with_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with treestore.open_sync("btree:///store") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert store.folder == str(tmp_path / "store")
        assert not store.holds("store")
        assert store.holds("../store/data")


def test_no_store_and_something_else_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        with pytest.raises(NoStore):
            treestore.open_sync(f"btree:///{tmp_path / name}", create=False)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter").touch()
    for name in ("file", "folder"):
        for create in (False, True):
            with pytest.raises(NotAStore) as caught:
                treestore.open_sync(f"btree:///{tmp_path / name}", create=create)
            assert not isinstance(caught.value, NoStore)
