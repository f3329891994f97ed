"""One user at a time, and the right files: locks that are deleted, folders that are moved, replaced or reached otherwise."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.ondisk import OPTIONS, ROOT, child_of, forked, run_python, small_disk
from tests.engine.workload import COUNTER, Group, History, contents, groups, key, problems
from treestore import Locked
from treestore.backends.btree.engine.engine import Engine
from treestore.errors import Unavailable

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork amid threads, which is meant


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def engine(folder: str) -> Iterator[Engine]:
    engine = Engine.open(folder, OPTIONS)
    yield engine
    engine.close()


def refused(*folders: str) -> None:
    """Neither this process nor another one can open the store by these names."""

    def let_in() -> int:
        for number, folder in enumerate(folders, 1):
            with contextlib.suppress(Locked):
                Engine.open(folder).close()
                return number
        return 0

    for folder in folders:
        with pytest.raises(Locked, match=" is in use by "):
            Engine.open(folder)
    assert forked(let_in) == 0


def rotated(engine: Engine, history: History, seed: int = 1) -> None:
    """Work that begins, retires and recycles log files, writes checkpoints and makes a new data file."""
    choose = random.Random(seed)
    first = engine._log.number
    while engine._log.number < first + 6:
        puts = {(1 + n % 3, key(choose.randrange(90))): choose.randbytes(6000) for n in range(12)}
        history.sent(engine, Group({**puts}))
        if engine.checkpoint_due():
            engine.checkpoint()
            engine.tidy()
    engine.compact()


def holds(folder: str, history: History) -> None:
    """The store, opened anew, is sound and holds what was sent."""
    engine = Engine.open(folder, OPTIONS, create_new=False)
    assert contents(engine.state) == history.models[-1]
    assert problems(engine) == []
    engine.close()


# --- the lock ------------------------------------------------------------------------------------------------------------


def test_a_store_is_refused_by_any_spelling_of_its_name(engine: Engine, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.path.dirname(folder)
    os.mkdir(parent + "/beside")
    os.symlink(parent, parent + "/beside/up")
    refused(folder + "/", parent + "/./store", parent + "/beside/../store", parent + "/beside/up/store")
    monkeypatch.chdir(parent + "/beside")
    with pytest.raises(Locked):
        Engine.open("../store")


def test_a_lock_file_that_is_deleted_lets_nobody_in(engine: Engine, folder: str) -> None:
    history = History()
    history.sent(engine, *groups(1, 3))
    os.unlink(folder + "/LOCK")
    refused(folder)
    Path(folder, "LOCK").write_text("somebody else's\n")
    refused(folder)
    rotated(engine, history)
    engine.close()
    holds(folder, history)


def test_a_lock_that_a_killed_process_left_is_nobodys(folder: str) -> None:
    code = """
        import sys, time
        from treestore.backends.btree.engine.engine import Engine
        engine = Engine.open(sys.argv[1])
        print("open", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(Locked, match=f"pid {holder.pid} on "):
            Engine.open(folder)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert f"pid {holder.pid} on " in Path(folder, "LOCK").read_text()
    engine = Engine.open(folder)
    assert f"pid {os.getpid()} on " in Path(folder, "LOCK").read_text()
    with pytest.raises(Locked, match=f"pid {os.getpid()}"):
        Engine.open(folder)
    engine.close()


def test_opening_at_once_from_many_threads_lets_one_in(folder: str) -> None:
    for _ in range(10):
        opened: list[Engine] = []
        refusals: list[Locked] = []
        start = threading.Barrier(8)

        def open_it(
            opened: list[Engine] = opened, refusals: list[Locked] = refusals, start: threading.Barrier = start
        ) -> None:
            start.wait()
            try:
                opened.append(Engine.open(folder))
            except Locked as error:
                refusals.append(error)

        threads = [threading.Thread(target=open_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(opened), len(refusals)) == (1, 7)
        opened[0].close()


def test_processes_take_turns_also_where_somebody_deletes_the_lock(folder: str) -> None:
    """Each reads a number, adds one and writes it, fifteen times; two at once would lose a turn, or damage the store."""

    def turns() -> int:
        done = 0
        while done < 15:
            try:
                engine = Engine.open(folder, OPTIONS)
            except Locked:
                time.sleep(0.001)
                continue
            group = Group({(2, key(os.getpid() * 100 + done)): b"x" * 3000})  # it counts itself too
            [error] = History(engine.state.lsn).commit(engine, [group])
            if error is not None:
                return 1
            if done % 3:
                engine._let_go("crash")
            else:
                engine.close()
            done += 1
        return 0

    def deletes() -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder + "/LOCK")
            time.sleep(0.002)

    children = [child_of(work) for work in (turns, turns, turns, turns, deletes)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children[:4]]
    os.kill(children[4], signal.SIGKILL)
    os.waitpid(children[4], 0)
    assert statuses == [0] * 4
    engine = Engine.open(folder, OPTIONS)
    assert int.from_bytes(engine.state.get(*COUNTER) or b"", "big") == engine.state.lsn == 60
    assert engine.state.count(2) == 60
    assert problems(engine) == []
    engine.close()


# --- folders that move ---------------------------------------------------------------------------------------------------


def test_a_folder_renamed_while_open_stays_whole_and_locked(engine: Engine, folder: str) -> None:
    history = History()
    history.sent(engine, *groups(2, 5))
    os.rename(folder, folder + "-moved")
    refused(folder + "-moved")
    rotated(engine, history)
    engine.close()
    assert not os.path.exists(folder)
    holds(folder + "-moved", history)


def test_a_new_store_where_an_open_one_was_shares_nothing_with_it(engine: Engine, folder: str) -> None:
    """By their paths both stores' files are the same."""
    first, second = History(), History()
    first.sent(engine, *groups(3, 5))
    os.rename(folder, folder + "-moved")
    other = Engine.open(folder, OPTIONS)
    for seed in (1, 2):
        rotated(engine, first, seed)
        rotated(other, second, seed + 7)
        for one, place in ((engine, folder + "-moved"), (other, folder)):
            assert one.figures()["log_files"] == len(list(Path(place, "wal").glob("*.log")))
    refused(folder, folder + "-moved")
    engine.close()
    refused(folder)
    other.close()
    holds(folder + "-moved", first)
    holds(folder, second)


def test_a_link_that_is_led_elsewhere_while_open_leads_nothing_astray(tmp_path: Path) -> None:
    first, second = History(), History()
    link = tmp_path / "link"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    link.symlink_to("one")
    engine = Engine.open(str(link), OPTIONS)
    link.unlink()
    link.symlink_to("other")
    other = Engine.open(str(link), OPTIONS)
    rotated(engine, first, 4)
    rotated(other, second, 5)
    refused(str(tmp_path / "one"), str(tmp_path / "other"), str(link))
    engine.close()
    other.close()
    holds(str(tmp_path / "one"), first)
    holds(str(tmp_path / "other"), second)


def test_a_relative_name_means_the_same_folder_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    history = History()
    monkeypatch.chdir(tmp_path)
    engine = Engine.open("store", OPTIONS)
    monkeypatch.chdir(tmp_path / "elsewhere")
    rotated(engine, history)
    refused(str(tmp_path / "store"))
    engine.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    holds(str(tmp_path / "store"), history)


def test_a_log_folder_that_is_gone_is_no_damage(engine: Engine, folder: str) -> None:
    """What is committed can be read still; the first write that needs a new file says what is wrong."""
    history = History()
    history.sent(engine, *groups(6, 3))
    os.rename(folder + "/wal", folder + "/wal-gone")
    error: Exception | None = None
    while error is None:
        [error] = history.commit(engine, [Group({(1, b"k"): b"v" * 60_000})])
    assert isinstance(error, Unavailable)
    assert "cannot " in str(error)
    assert contents(engine.state) == history.models[history.acknowledged]
    os.rename(folder + "/wal-gone", folder + "/wal")


_READ_ONLY = """
    import os, subprocess, sys
    from tests.engine.ondisk import files_of, stored
    from treestore.backends.btree.engine.engine import Engine
    from treestore.errors import ReadOnly

    place, mounted = sys.argv[1], sys.argv[2] == "mounted"
    stored(place + "/store")
    os.mkdir(place + "/empty")
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    else:
        subprocess.run(["chmod", "-R", "a=rX", place], check=True)
    if os.getuid() == 0 and not mounted:
        os.seteuid(65534)
    before = files_of(place)
    for name in ("store", "empty", "new"):
        try:
            Engine.open(f"{place}/{name}")
        except ReadOnly as error:
            print(error)
    assert files_of(place) == before
    if os.getuid() == 0:
        os.seteuid(0)
    if mounted:
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    else:
        subprocess.run(["chmod", "-R", "u=rwX", place], check=True)
    Engine.open(place + "/store").close()
"""


def test_a_disk_that_is_read_only_refuses_and_is_left_alone() -> None:
    """Mounted so; where that is not allowed, its folders and files are of a mode that refuses (for root, another user)."""
    with tempfile.TemporaryDirectory(prefix="treestore-test-") as path:
        os.chmod(path, 0o755)
        disk = small_disk("tmpfs", Path(path), 20)
        said = run_python(_READ_ONLY, path, "mounted" if disk else "refusing", on=disk or ())
        assert len(said.stdout.splitlines()) == 3
