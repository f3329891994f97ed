"""``scripts/demo`` and ``scripts/test``: they work, and in an environment that can't work they say what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.postgres import databases

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("scripts/demo", "scripts/test")


def run(script: Path, *arguments: str, path: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script as sh does, from another folder and without a terminal, in an environment of these variables alone."""
    shell = shutil.which("dash") or "/bin/sh"
    return subprocess.run(
        [shell, str(script), *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"] if path is None else path, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demo_runs_without_a_terminal_and_cleans_up(tmp_path: Path) -> None:
    # The environment that the tests run in, so that no test installs anything.
    ran = run(ROOT / "scripts" / "demo", VENV=sys.prefix, TMPDIR=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    for shown in ("created    four-lectures 1  53 nodes", "unchanged  earthmover 1", "equal to README_markdown", "sound: "):
        assert shown in ran.stdout
    for found in ("0029  Capital Expenditures  [page 12]", "0034  Sharing Between Argument and Result  [page 28]"):
        assert f"\n{found}" in ran.stdout
    assert "regulatory arbitrage, though these risks may be mitigated" in ran.stdout
    assert "gpt-4o-2024-11-20) --toc-check-pages" in ran.stdout
    assert "\n+ 0002  Introduction › Comments Received  [pages 5-6]\n" in ran.stdout
    assert "\n1 added, 1 changed, 1 moved\n" in ran.stdout, "the ids shifted, and that is no change"
    as_of = ran.stdout.partition("versions leave --as-of 2026-02-28")[2].splitlines()[2]
    assert as_of.split()[:2] == ["1", "2026-01-01"]
    assert "\x1b" not in ran.stdout
    assert [entry.name for entry in tmp_path.iterdir() if "demo" in entry.name] == []


def test_the_demo_runs_on_postgresql(tmp_path: Path) -> None:
    name = databases.new_name()
    databases.server().make_database(name)
    url = databases.server().url(name).replace("postgres@", "postgres:secret@")
    ran = run(ROOT / "scripts" / "demo", "--store", url, VENV=sys.prefix, TMPDIR=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")
    for shown in ("created    four-lectures 1  53 nodes", "equal to README_markdown", "sound: ", "no differences"):
        assert shown in ran.stdout
    assert "\n1 added, 1 changed, 1 moved\n" in ran.stdout
    assert "postgresql://postgres:***@/" in ran.stdout and "secret" not in ran.stdout


def test_a_demo_whose_reader_goes_away_cleans_up(tmp_path: Path) -> None:
    shell = shutil.which("dash") or "/bin/sh"
    environ = {"PATH": os.environ["PATH"], "VENV": sys.prefix, "TMPDIR": str(tmp_path)}
    command = [shell, str(ROOT / "scripts" / "demo")]
    ran = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ran.stdout is not None
    assert ran.stderr is not None
    ran.stdout.readline()
    ran.stdout.close()
    said = ran.stderr.read().decode()
    ran.stderr.close()
    assert ran.wait(60) == 128 + signal.SIGPIPE
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    shell = shutil.which("dash") or "/bin/sh"
    environ = {"PATH": os.environ["PATH"], "VENV": sys.prefix, "TMPDIR": str(tmp_path)}
    command = [shell, str(ROOT / "scripts" / "demo")]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as ran:
        assert ran.stdout is not None
        while b"created" not in ran.stdout.readline():
            pass
        os.killpg(ran.pid, number)
        _, said = ran.communicate(timeout=60)
    assert ran.returncode == 128 + number
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_demo_in_a_store_that_can_not_be_says_so_once(tmp_path: Path) -> None:
    ran = run(ROOT / "scripts" / "demo", "--store", "nonsense", VENV=sys.prefix, TMPDIR=str(tmp_path))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "url: is 'nonsense'" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--store"], ["--store", ""], ["a", "b", "c"]])
def test_the_demo_refuses_arguments_that_it_does_not_know(arguments: list[str]) -> None:
    ran = run(ROOT / "scripts" / "demo", *arguments)
    assert (ran.returncode, ran.stderr) == (2, "demo: usage: scripts/demo [--store URL]\n")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with the few commands that the scripts need, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "mktemp", "rm", "sed", "env"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def fake_python(folder: Path, name: str, version: str, status: int) -> None:
    """A Python of this version that fails the scripts' question by this status."""
    program = folder / name
    program.write_text(f'#!/bin/sh\ncase $2 in *print*) echo {version} ;; *) exit {status} ;; esac\n')
    program.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_python(tools: Path, script: str) -> None:
    ran = run(ROOT / script, path=str(tools))
    assert ran.returncode == 1
    assert "no Python was found; Python 3.11 or newer is needed" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_is_too_old(tools: Path, script: str) -> None:
    fake_python(tools, "python3", "3.9", 10)
    ran = run(ROOT / script, path=str(tools))
    assert ran.returncode == 1
    assert f"Python 3.11 or newer is needed; {tools}/python3 is 3.9." in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_has_no_venv(tools: Path, script: str) -> None:
    fake_python(tools, "python3", "3.9", 10)
    fake_python(tools, "python3.12", "3.12", 11)
    ran = run(ROOT / script, path=str(tools))
    assert ran.returncode == 1
    assert f"{tools}/python3.12 is Python 3.12, but it can't make virtual environments" in ran.stderr
    assert "apt install python3.12-venv" in ran.stderr


def test_the_python_that_was_named_does_not_run(tools: Path) -> None:
    ran = run(ROOT / "scripts" / "test", path=str(tools), PYTHON="/nonexistent/python")
    assert ran.returncode == 1
    assert "PYTHON=/nonexistent/python does not run" in ran.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_empty_name_of_a_python_names_none(tools: Path, script: str) -> None:
    fake_python(tools, "python3", "3.9", 10)
    ran = run(ROOT / script, path=str(tools), PYTHON="")
    assert f"{tools}/python3 is 3.9." in ran.stderr


def test_a_python_may_lie_in_a_folder_with_spaces(tools: Path) -> None:
    fake_python(tools, "my python", "3.10", 10)
    ran = run(ROOT / "scripts" / "test", path=str(tools), PYTHON=str(tools / "my python"))
    assert f"{tools}/my python is 3.10." in ran.stderr


def test_a_python_that_was_named_is_not_passed_over(tools: Path) -> None:
    fake_python(tools, "mine", "3.10", 10)
    (tools / "python3").symlink_to(sys.executable)
    ran = run(ROOT / "scripts" / "test", path=str(tools), PYTHON=str(tools / "mine"))
    assert ran.returncode == 1
    assert "is 3.10" in ran.stderr


def test_a_short_kill_loop(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "kill_loop.py"), "--kills", "3", "--first-seed", "1", "--folder"]
    ran = subprocess.run([*command, str(tmp_path)], cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("3 kills in ")
    assert "\n0 failures; seeds 1 to 3\n" in ran.stdout
    assert list(tmp_path.iterdir()) == []


# --- the environment that they make --------------------------------------------------------------------------------------


class Made:
    """``scripts/environment.py`` on a checkout of its own; what it would run is noted, and an environment stands there."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.ran: list[str] = []
        self.fail_at = ""
        self._module = load(ROOT / "scripts" / "environment.py")
        vars(self._module).update(ROOT=checkout, run=self._run)

    def _run(self, *command: str | Path) -> None:
        step = str(command[2])
        self.ran.append(" ".join([step, *map(str, command[-1:])]))
        if step == self.fail_at:
            raise SystemExit("environment: this step failed")
        if step == "venv":
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sys.executable, python)

    def __call__(self, extra: str = "") -> list[str]:
        """Run it; the steps that it took."""
        self.ran.clear()
        self._module.main(extra)
        return list(self.ran)

    def folder(self) -> Path:
        found: Path = self._module.environment_folder()
        return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    checkout = tmp_path / "a check out"
    checkout.mkdir()
    (checkout / "pyproject.toml").write_text("[project]\n")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return Made(checkout)


def test_the_second_time_nothing_is_done(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    venv = made.checkout / ".venv"
    assert made("dev") == [f"venv {venv}", f"pip {made.checkout}[dev]"]
    assert capsys.readouterr().out == f"{venv}\n"
    assert made("dev") == []
    assert made() == [], "what the tests need is enough for the demo"
    assert capsys.readouterr().out == f"{venv}\n{venv}\n"


def test_what_the_tests_need_is_added(made: Made) -> None:
    made()
    assert made("dev") == [f"pip {made.checkout}[dev]"]
    assert made() == []


def test_an_interrupted_one_is_made_again(made: Made) -> None:
    made.fail_at = "pip"
    with pytest.raises(SystemExit):
        made("dev")
    made.fail_at = ""
    assert [step.split()[0] for step in made("dev")] == ["venv", "pip"]


def test_an_interrupt_during_set_up_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    shell = shutil.which("dash") or "/bin/sh"
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    command = [shell, str(checkout / "scripts" / "test")]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as ran:
        assert ran.stderr is not None
        assert ran.stderr.readline() == f"making {checkout / '.venv'} ...\n".encode()
        while not (checkout / ".venv" / "bin").exists():
            time.sleep(0.01)
        os.killpg(ran.pid, signal.SIGINT)
        out, said = ran.communicate(timeout=60)
    assert (ran.returncode, out, said.decode()) == (130, b"", "environment: interrupted; the next run begins anew\n")
    assert not (checkout / ".venv" / "treestore.json").exists()


def test_it_is_made_again_if_what_it_was_made_from_changed(made: Made) -> None:
    made("dev")
    (made.checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert made() == [f"venv {made.checkout / '.venv'}", f"pip {made.checkout}[dev]"], "with what was in it"
    moved = made.checkout.rename(made.checkout.parent / "moved")
    assert [step.split()[0] for step in Made(moved)("dev")] == ["venv", "pip"], "it holds the old place in its files"
    (moved / ".venv" / "bin" / "python").unlink()
    assert [step.split()[0] for step in Made(moved)("dev")] == ["venv", "pip"], "its Python was removed"
    (moved / ".venv" / "treestore.json").write_text("{")
    assert [step.split()[0] for step in Made(moved)("dev")] == ["venv", "pip"]


def test_a_checkout_that_can_not_be_written_to(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    folder = made.folder()
    assert made.checkout not in folder.parents
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert made.folder() == folder


def test_the_environment_of_another_user_is_not_used(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made("dev")
    monkeypatch.setattr("os.geteuid", lambda: 4321)
    with pytest.raises(SystemExit, match="is not a folder that only this user can write to"):
        made.folder()  # the folder under /tmp is made by us, so for user 4321 it is somebody else's
    monkeypatch.undo()
    assert made.folder() == made.checkout / ".venv"


def test_a_linked_environment_is_not_cleared(made: Made, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "kept").touch()
    (made.checkout / ".venv").symlink_to(theirs)
    made("dev")
    assert (theirs / "kept").exists()


def test_the_stamp_is_readable(made: Made) -> None:
    made("dev")
    stamp = json.loads((made.checkout / ".venv" / "treestore.json").read_text())
    assert stamp["extras"] == ["dev"]
