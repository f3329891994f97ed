"""``scripts/benchmark_backends.py``: a whole run with all that it writes, and every argument that it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.script import SCRIPTS, Outputs, run
from treestore.bench import contenders
from treestore.bench.cases import CASES

SCRIPT = "benchmark_backends.py"


def test_a_small_run(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    outputs = Outputs(tmp_path)
    ran = run(SCRIPT, *("--nodes", 60, "--rounds", 1), *outputs.arguments, temporary=temporary)
    assert ran.returncode == 0, ran.stderr
    assert list(temporary.iterdir()) == []
    found = outputs.data
    assert (found["nodes"], found["rounds"]) == (60, 1)
    assert [case["name"] for case in found["cases"]] == [case.name for case in CASES]
    assert found["versions"]["PostgreSQL"]
    names = [kind.name for kind in contenders.available(server=True)]
    printed, marked = ran.stdout.splitlines()[1:], outputs.markdown.splitlines()[2:]
    for number, case in enumerate(found["cases"]):
        assert {"treestore", "treestore async", "treestore on PostgreSQL"} <= case["seconds"].keys() <= set(names)
        assert all(0 < times["median"] < 10 for times in case["seconds"].values())
        assert printed[number].startswith(case["what"])
        assert marked[number].startswith(f"| {case['what']} | ")
    for shown in [*names, *(case.what for case in CASES), "60 nodes"]:
        assert shown in outputs.drawn


@pytest.mark.parametrize("missing", ["matplotlib", "lmdb"])
def test_what_is_not_installed(missing: str, tmp_path: Path) -> None:
    (tmp_path / f"{missing}.py").write_text(f'raise ModuleNotFoundError("No module named {missing!r}")\n')
    plotted = tmp_path / "found.svg"
    ran = run(SCRIPT, "--nodes", 2, "--rounds", 1, "--postgres", "none", "--plot", plotted, path=tmp_path)
    if missing == "lmdb":
        assert ran.returncode == 0, ran.stderr
        said = "LMDB is left out: Python's lmdb is not installed (pip install lmdb)\nmaking the document\n"
        assert ran.stderr.startswith(said)
        assert "LMDB" not in ran.stdout.splitlines()[0]
        assert "POSTGRES" not in ran.stdout
        assert "2 nodes, 1 round" in plotted.read_text()
    else:
        said = "--plot: needs matplotlib (No module named 'matplotlib'): pip install -e '.[dev]'"
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"benchmark_backends: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "0"], "nodes: must be from 1 to 1000000, not 0"),
        (["--nodes", "-1"], "nodes: must be from 1 to 1000000, not -1"),
        (["--nodes", "1000000000000"], "nodes: must be from 1 to 1000000, not 1000000000000"),
        (["--nodes", "many"], "argument --nodes: invalid int value: 'many'"),
        (["--rounds", "0"], "rounds: must be from 1 to 100, not 0"),
        (["--rounds", "101"], "rounds: must be from 1 to 100, not 101"),
        (["--folder", "/nonexistent/folder"], "folder: /nonexistent/folder is no folder that can be written to"),
        (["--json", "/nonexistent/folder/found.json"], "--json: /nonexistent/folder/found.json can't be written to"),
        (["--markdown", "/"], "--markdown: / can't be written to"),
        (["--plot", "/nonexistent/folder/found.svg"], "--plot: /nonexistent/folder/found.svg can't be written to"),
        (["--plot", "found.pdf"], "--plot: must end in .svg or .png"),
        (["--postgres", "mysql://here"], "url: must begin with postgresql://, postgres:// or postgresql+asyncpg://"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_arguments_that_are_refused(arguments: list[str], said: str) -> None:
    ran = run(SCRIPT, "--postgres", "none", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"benchmark_backends: {said}\n")


@pytest.mark.parametrize(("number", "postgres"), [(signal.SIGTERM, []), (signal.SIGINT, ["--postgres", "none"])])
def test_a_run_that_is_ended_leaves_nothing(number: signal.Signals, postgres: list[str], tmp_path: Path) -> None:
    status = 128 + number
    command = [sys.executable, str(SCRIPTS / SCRIPT), "--nodes", "300", "--folder", str(tmp_path), *postgres]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}  # the server lies there, if its path is short enough
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=environ
    ) as ran:
        assert ran.stderr is not None
        while not ran.stderr.readline().startswith(b"checking the answers: 64"):
            pass
        time.sleep(0.1)
        ran.send_signal(number)
        out, said = ran.communicate(timeout=60)
    assert (ran.returncode, out) == (status, b"")
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["benchmark_backends", "benchmark_scale"])
def test_a_python_without_treestore_goes_on_in_the_environment_of_the_scripts(name: str, tmp_path: Path) -> None:
    script = tmp_path / "scripts" / f"{name}.py"
    script.parent.mkdir()
    shutil.copy(SCRIPTS / script.name, script)
    text = (SCRIPTS / "environment.py").read_text(encoding="utf-8")
    for made, given in (("make(folder, extra)", "assert extra == 'dev'"), ("    print(folder)", f"    print({sys.prefix!r})")):
        assert text.count(made) == 1
        text = text.replace(made, given)
    script.with_name("environment.py").write_text(text, encoding="utf-8")
    ran = subprocess.run([sys.executable, "-S", script, "--nodes", "0"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.startswith(f"{name}: "), "no traceback"
