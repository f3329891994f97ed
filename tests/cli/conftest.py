"""Running the command: in this process (fast, the whole of it but the interpreter's start) and as a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command, Files


@pytest.fixture
def treestore(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command on a store of its own that does not exist yet."""
    return Command(tmp_path_factory.mktemp("cli") / "store", capsys)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes PageIndex files."""
    return Files(tmp_path)
