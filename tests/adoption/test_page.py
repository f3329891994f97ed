"""The examples of docs/adopting.md, run in the order in which they stand, on a database that the old service goes on using."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.adoption import adopting, trees
from tests.adoption.old_service.service import Service
from tests.postgres import databases
from treestore.cli.app import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adopting.md"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

LEAVE = [trees.node("1", trees.node("1.1", text="Thirty days a year."), title="Leave")]


def test_the_way_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    url = adopting.old_url()
    monkeypatch.setenv("TREESTORE_URL", url)
    monkeypatch.setenv("PATH", f"{databases.server().installation.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with Service(url) as service:
        service.persist("leave", "1", LEAVE)
        tables = adopting.catalog(url)
        turn = 0
        for language, block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if language == "python" and "include_name" not in block:
                (tmp_path / "example.py").write_text(block, encoding="utf-8")
                capsys.readouterr()
                runpy.run_path(str(tmp_path / "example.py"))
                assert capsys.readouterr().out.startswith("Leave\n  title of 1.1\n")
                node = service.node("leave", "1", "1.1")
                assert node is not None
                assert node.summary == "Thirty days."
            for line in block.splitlines() if language == "sh" else ():
                if line.startswith("treestore "):
                    assert run(shlex.split(line)[1:]) == 0, line
                else:
                    subprocess.run(line, shell=True, check=True)
                turn += 1
                service.persist(f"beside {turn}", "1", trees.policy())
                assert len(service.nodes(f"beside {turn}", "1")) == 7
        assert turn >= 6
        assert (tmp_path / "before.dump").stat().st_size > 1000
        service.reingest("leave", "1", LEAVE)
        adopting.run(url, "downgrade", "base", "--yes")
        assert adopting.catalog(url) == tables
