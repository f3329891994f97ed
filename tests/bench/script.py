"""Running the scripts that measure, as tests of all of them do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(
    name: str, *arguments: object, temporary: Path | None = None, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end. ``temporary`` is where its temporary folders are, ``path`` is searched for modules first."""
    given = {"TMPDIR": temporary, "PYTHONPATH": path}
    environ = {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


class Outputs:
    """The files that a script may be asked to write."""

    def __init__(self, folder: Path) -> None:
        self._paths = {kind: folder / f"found.{kind}" for kind in ("json", "markdown", "svg")}

    @property
    def arguments(self) -> tuple[object, ...]:
        """What asks for them."""
        return "--json", self._paths["json"], "--markdown", self._paths["markdown"], "--plot", self._paths["svg"]

    @property
    def data(self) -> Any:
        """The JSON, decoded."""
        return json.loads(self._paths["json"].read_text())

    @property
    def markdown(self) -> str:
        """The Markdown."""
        return self._paths["markdown"].read_text()

    @property
    def drawn(self) -> str:
        """All text of the picture."""
        return "".join(ElementTree.parse(self._paths["svg"]).getroot().itertext())
