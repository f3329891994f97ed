"""The house rules that a reader of the code relies on, checked over all of it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest

import treestore

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "treestore").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

FILE_LINES = 500
FUNCTION_LINES = 70

UNSAFE = {"pickle", "marshal", "shelve", "mmap"}
"""pickle and its kind run what they read; a file cut short under mmap kills Python by SIGBUS."""

LOADED_BY_THE_COMMAND = {"typer", "click", "rich", "pydantic", "sqlalchemy", "asyncpg", "psycopg", "grpc", "fastapi"}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < FILE_LINES, "the file holds more than one thing"
    long = {function.name: lines for function, lines in _functions(text) if lines >= FUNCTION_LINES}
    assert long == {}


def _functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    for found in ast.walk(ast.parse(text)):
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            assert found.end_lineno is not None
            yield found, found.end_lineno - found.lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_nothing_imports_what_is_unsafe(path: Path) -> None:
    imported: set[str] = set()
    for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(found, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            imported.add((found.module or "").partition(".")[0])
    assert imported & UNSAFE == set()


def test_imports_go_one_way() -> None:
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    ran = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_importing_treestore_loads_neither_extras_nor_the_command_line() -> None:
    report = "import sys, treestore; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert loaded & LOADED_BY_THE_COMMAND == set()
    assert not any(name.startswith(("treestore.cli", "treestore.backends.btree.")) for name in loaded)


@pytest.mark.parametrize("name", [name for name in treestore.__all__ if not name.startswith("__")])
def test_public_names_say_what_they_are(name: str) -> None:
    public = getattr(treestore, name)
    assert inspect.getdoc(get_origin(public) or public)
    if inspect.isclass(public) and public.__module__.startswith("treestore."):
        methods = {key: member for key, member in vars(public).items() if not key.startswith("_") and callable(member)}
        assert [key for key, member in methods.items() if not inspect.getdoc(member)] == []


def test_every_package_says_what_it_may_be_used_with() -> None:
    assert (ROOT / "treestore" / "py.typed").exists()
    assert treestore.__version__ == _pyproject_version()


def _pyproject_version() -> str:
    import tomllib

    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
