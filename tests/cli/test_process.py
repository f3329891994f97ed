"""The command as a process of its own: streams, exit statuses, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import PROGRAM, SHIPPED, Command, Files, node
from treestore import __version__

LECTURES = SHIPPED / "four-lectures_structure.json"


def test_the_installed_command_and_the_module_are_one() -> None:
    script = Path(sys.executable).parent / "treestore"
    for program in ([str(script)] if script.exists() else [], PROGRAM):
        if program:
            ran = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
            assert ran.stdout == f"treestore {__version__}\n"


def test_help_names_every_verb(treestore: Command) -> None:
    ran = treestore.process("--help")
    assert (ran.status, ran.err) == (0, "")
    verbs = "ingest documents tree node children ancestors search page versions diff export delete stats check backup compact"
    verbs += " restore salvage"
    assert [verb for verb in [*verbs.split(), "config"] if f" {verb} " not in ran.out] == []


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_cuts_nothing_off(treestore: Command, columns: int) -> None:
    environ = {"COLUMNS": str(columns)}
    verbs = treestore.process("--help", environ=environ).out.partition("Commands:\n")[2].splitlines()
    assert [line for line in verbs if line.endswith("...")] == []
    for verb in ("tree", "search", "page", "versions"):
        shown = treestore.process(verb, "--help", environ=environ).out
        assert "btree:///treestore-data." in shown, "an address is not broken in two"
        assert max(map(len, shown.splitlines())) <= columns


def test_streams_and_statuses(treestore: Command, files: Files) -> None:
    ingested = treestore.process("ingest", LECTURES, files.text("", "bad.json"))
    assert ingested.status == 2
    assert ingested.out == f"created    four-lectures 1  53 nodes  {LECTURES}\n"
    assert ingested.err.startswith(f"treestore: {files.folder}/bad.json: is not JSON")
    assert treestore.process("export", "four-lectures").json == json.loads(LECTURES.read_text(encoding="utf-8"))
    assert (treestore.process("tree", "nope").status, treestore.process("tree").status) == (1, 2)
    assert treestore.process("check").status == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_of_stdout(treestore: Command, files: Files, encoding: str) -> None:
    path = files.document(node("a", title="休暇 é 🏖"))
    treestore.done("ingest", path)
    environ = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [*PROGRAM, "--store", treestore.url]
    exported = subprocess.run([*command, "export", "policy"], env=environ, capture_output=True, check=True)
    assert json.loads(exported.stdout.decode(encoding)) == json.loads(path.read_text(encoding="utf-8"))
    shown = subprocess.run([*command, "tree", "policy"], env=environ, capture_output=True, check=True)
    assert shown.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(treestore: Command, files: Files, unbuffered: str) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    treestore.done("ingest", files.document(*[node(f"{n:05}", summary="s" * 500) for n in range(5000)]))
    command = [*PROGRAM, "--store", treestore.url]
    for arguments in (["tree", "policy"], ["tree", "policy", "--json"], ["export", "policy"]):
        ran = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.read(10)
        ran.stdout.close()
        assert ran.stderr.read() == b""
        ran.stderr.close()
        assert ran.wait(60) == 128 + signal.SIGPIPE


def test_an_interrupt_is_one_line(treestore: Command) -> None:
    """The command waits for a file that never ends, and is interrupted there."""
    fifo = treestore.store.parent / "fifo.json"
    os.mkfifo(fifo)
    ran = subprocess.Popen([*PROGRAM, "--store", treestore.url, "ingest", str(fifo)], stderr=subprocess.PIPE)
    writer = os.open(fifo, os.O_WRONLY)  # returns once the command reads
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=60)
    os.close(writer)
    assert (ran.returncode, err.decode().strip()) == (130, "treestore: interrupted")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_one_line(treestore: Command, unbuffered: str) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    treestore.done("ingest", LECTURES)
    command = [*PROGRAM, "--store", treestore.url, "tree", "four-lectures"]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environ, check=False)
    assert ran.returncode == 1
    assert ran.stderr.decode() == "treestore: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("verb", ["", "ingest"])
def test_a_help_text_that_can_not_be_printed_is_one_line(verb: str) -> None:
    command = [*PROGRAM, *verb.split(), "-h"]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (ran.returncode, ran.stderr) == (1, b"treestore: cannot write to standard output: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert ran.returncode != 0
    assert ran.stderr == b""


def closed(*descriptors: int) -> Callable[[], None]:
    """Closes these streams in a process that is about to run the command."""
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_streams_that_are_closed(treestore: Command, missing: tuple[int, ...]) -> None:
    command = [*PROGRAM, "--store", treestore.url]
    streams: dict[str, Any] = {"stdin": None, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60}
    for arguments, status in (["ingest", str(LECTURES)], 0), (["tree", "four-lectures"], 0), (["tree", "nope"], 1):
        ran = subprocess.run([*command, *arguments], preexec_fn=closed(*missing), check=False, **streams)
        assert ran.returncode == status
        assert bool(ran.stderr) == (status != 0 and 2 not in missing)
        assert bool(ran.stdout) == (status == 0 and 1 not in missing)
    delete = [*command, "delete", "four-lectures"]
    ran = subprocess.run(delete, preexec_fn=closed(*{0, *missing}), check=False, **streams)
    assert ran.returncode == 2
    assert b"say --yes to do it" in ran.stderr or 2 in missing
    assert treestore.done("check").out.startswith("sound: ")
    assert len(treestore.done("documents", "--json").json) == 1


def test_what_the_library_logs_reaches_no_user(treestore: Command) -> None:
    script = """
import logging, sys, treestore
from treestore.cli.app import main

def opened(*args, **kwargs):
    logging.getLogger("treestore.btree").warning("said by the library")
    return original(*args, **kwargs)

original, treestore.open_sync = treestore.open_sync, opened
main(["--store", "memory://", "documents", "--json"])
"""
    for debug, said in (("", ""), ("1", "said by the library\n")):
        environ = {**os.environ, "TREESTORE_DEBUG": debug}
        ran = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", said)


def test_debug_shows_where(treestore: Command) -> None:
    treestore.done("ingest", LECTURES)
    ran = treestore.process("tree", "nope", environ={"TREESTORE_DEBUG": "1"})
    assert "Traceback" in ran.err
    assert "NotFound" in ran.err


def in_terminal(*arguments: str, typed: bytes = b"", columns: int = 60, **more: str) -> tuple[int, str]:
    """Run the command with a terminal as all its streams; its status and what the terminal received."""
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environ = {**inherited, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **more}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(PROGRAM[0], [*PROGRAM, *arguments], environ)
    if typed:
        os.write(terminal, typed)
    received = b""
    try:
        while chunk := os.read(terminal, 65536):
            received += chunk
    except OSError:
        pass  # how Linux reports the end of a terminal
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), received.decode()


def test_a_terminal_gets_colours_and_titles_that_fit(treestore: Command, files: Files) -> None:
    treestore.done("ingest", files.document(node("a", title="t" * 480), node("b", title="\x1b[31mred")))
    status, shown = in_terminal("--store", treestore.url, "tree", "policy")
    first, second = shown.splitlines()
    assert status == 0
    assert "\x1b[36ma\x1b[0m" in first, "the id is coloured"
    assert len(first.replace("\x1b[36m", "").replace("\x1b[0m", "")) <= 60
    assert "…  [pages 1-2]" in first
    assert "\\x1b[31mred" in second


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_each_row_of_a_table_is_one_line_of_a_terminal(treestore: Command, files: Files, columns: int) -> None:
    path = files.document(node("n" * 100, title="t" * 300))
    treestore.done("ingest", path, "--policy", "p" * 100, "--version", "v" * 50, "--description", "d" * 300)
    treestore.done("ingest", path, "--policy", "leave", "--effective-date", "2026-03-01T12:34:56")
    for verb in (["documents"], ["versions", "p" * 100], ["children", "p" * 100]):
        status, shown = in_terminal("--store", treestore.url, *verb, columns=columns)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert (status, len(lines)) == (0, 3 if verb == ["documents"] else 2)
        assert max(map(len, lines)) <= columns
        if columns >= 80 and verb == ["documents"]:
            assert lines[1].split()[2].startswith("2026-03-01")
            assert re.search(r"…  1 +1\b", lines[1]), "the counts are seen"
    assert f"{'p' * 100}  {'v' * 50}" in treestore.process("documents").out


def test_a_terminal_sees_progress_and_the_pipe_does_not(treestore: Command) -> None:
    status, shown = in_terminal("--store", treestore.url, "ingest", str(LECTURES))
    assert status == 0
    assert "storing" in shown
    assert "created    four-lectures 1  53 nodes" in shown
    assert "storing" not in treestore.process("ingest", LECTURES).err


def test_delete_asks_in_a_terminal(treestore: Command) -> None:
    treestore.done("ingest", LECTURES)
    delete = ("--store", treestore.url, "delete", "four-lectures")
    status, shown = in_terminal(*delete, typed=b"n\n")
    assert (status, "nothing was deleted" in shown) == (1, True)
    assert len(treestore.done("documents", "--json").json) == 1
    status, shown = in_terminal(*delete, typed=b"y\n")
    assert (status, "deleted    four-lectures 1  53 nodes" in shown) == (0, True)
    assert treestore.done("documents", "--json").json == []
