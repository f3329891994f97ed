"""The command under test, and the files that it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from treestore.cli.app import run

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "pageindex"
SHIPPED_FILES = sorted(SHIPPED.glob("*.json"))


@dataclass(frozen=True)
class Ran:
    """What one run of the command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Command:
    """``treestore`` with a store of its own."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self.url = f"btree:///{store}"
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        """Run it in this process."""
        self._capsys.readouterr()
        status = run(["--store", self.url, *map(str, arguments)])
        captured = self._capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    def done(self, *arguments: object) -> Ran:
        """Run it in this process; it must succeed and say nothing on stderr."""
        ran = self(*arguments)
        assert (ran.status, ran.err) == (0, "")
        return ran

    def refused(self, status: int, *arguments: object) -> str:
        """Run it in this process; it must end with this status and one line on stderr, which is returned."""
        ran = self(*arguments)
        assert ran.status == status, ran
        assert ran.out == ""
        assert ran.err.startswith("treestore: ")
        assert ran.err.count("\n") == 1, "one line"
        return ran.err.removeprefix("treestore: ").rstrip("\n")

    def process(self, *arguments: object, environ: Mapping[str, str] | None = None, **more: Any) -> Ran:
        """Run it as a process of its own."""
        ran = subprocess.run(
            [*PROGRAM, "--store", self.url, *map(str, arguments)],
            env={**os.environ, **(environ or {})},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            **more,
        )
        return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


PROGRAM = [sys.executable, "-m", "treestore"]


class Files:
    """Writes PageIndex files into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, text: str | bytes, name: str = "policy.json") -> Path:
        path = self.folder / name
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return path

    def document(self, *nodes: Mapping[str, Any], name: str = "policy.json", **fields: Any) -> Path:
        return self.text(json.dumps({"doc_name": "policy.pdf", **fields, "structure": list(nodes)}), name)


def node(node_id: str | None = "0000", **fields: Any) -> dict[str, Any]:
    """A node of the PDF shape; ``None`` as id leaves the key out."""
    ids = {} if node_id is None else {"node_id": node_id}
    return {"title": f"Title of {node_id}", **ids, "start_index": 1, "end_index": 2, **fields}
