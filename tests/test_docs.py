"""Every example in README.md and docs/guide.md runs, and prints what it says that it prints."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import SHIPPED
from treestore.cli.app import run

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "docs/guide.md"]

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for found, block in _BLOCK.findall(text) if found == language]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SHIPPED / "four-lectures_structure.json", tmp_path / "handbook_structure.json")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_python_examples(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    program = tmp_path / "example.py"
    found = blocks(page, "python")
    assert found
    for block in found:
        program.write_text(block, encoding="utf-8")
        names = runpy.run_path(str(program), init_globals=names)
        expected = _PRINTED.findall(block)
        if expected:
            assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("page", PAGES)
def test_shell_examples(page: str) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("treestore ")]
    assert lines
    for line in lines:
        assert run(shlex.split(line)[1:]) == 0, line


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [target for target in _LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / target).exists()]
    assert missing == []


def test_the_tests_that_a_page_names_are_there() -> None:
    tests = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"\bdef (test_\w+)", path.read_text())}
    files = {path.name for path in (ROOT / "tests").rglob("*.py")}
    text = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(test_\w+)(?!\.py|\w)", text))
    assert len(named) > 50
    assert named - tests == set()
    assert set(re.findall(r"\b(test_\w+\.py)", text)) - files == set()
