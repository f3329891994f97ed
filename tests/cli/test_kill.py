"""`treestore ingest` killed at any moment, fifty times: what had returned 0 is there, whole, and the store is sound."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import treestore
from treestore import pageindex

KILLS = 50
SEED = 20261120


def _tree(number: int, sections: int, text: str) -> dict[str, Any]:
    """A PageIndex document of flat sections, each about as long as the text."""
    nodes = [
        {"title": f"Section {i} of {number}", "node_id": f"{i:04d}", "start_index": i, "end_index": i, "text": f"{i} {text}"}
        for i in range(sections)
    ]
    return {"doc_name": f"policy {number}.pdf", "structure": nodes}


def _start(store: Path, file: Path, policy: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "treestore", "--store", f"btree:///{store}", "ingest", str(file)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TREESTORE_")}
    return subprocess.Popen(
        [*command, "--policy", policy, "--version", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )


def test_ingests_killed_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    store = tmp_path / "store"
    acknowledged: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    unhindered = _start(store, _written(tmp_path, _tree(0, 50, "x")), "unhindered")
    _, said = unhindered.communicate()
    assert unhindered.returncode == 0, said.decode()
    length = time.monotonic() - began
    kills = number = 0
    while kills < KILLS:
        number += 1
        # Every fourth is above the size from which a tree is loaded in bulk, beside the log.
        tree = _tree(number, 6000, "y" * 1000) if number % 4 == 0 else _tree(number, 200, "z" * 300)
        ingest = _start(store, _written(tmp_path, tree), f"policy {number}")
        try:
            _, said = ingest.communicate(timeout=chance.uniform(0.3 * length, (3.0 if number % 4 == 0 else 1.2) * length))
            assert ingest.returncode == 0, said.decode()
            acknowledged[f"policy {number}"] = tree
        except subprocess.TimeoutExpired:
            ingest.send_signal(signal.SIGKILL)
            ingest.communicate()
            kills += 1
            if kills % 10 == 0:
                _look(store, acknowledged)
    _look(store, acknowledged)
    assert acknowledged, "no ingest ended before it was killed: the delays are too short"


def _written(folder: Path, tree: dict[str, Any]) -> Path:
    file = folder / "tree.json"
    file.write_text(json.dumps(tree))
    return file


def _look(store: Path, acknowledged: dict[str, dict[str, Any]]) -> None:
    with treestore.open_sync(f"btree:///{store}") as opened:
        report = opened.check()
        assert report.ok, report.problems
        for policy, tree in acknowledged.items():
            assert pageindex.write(opened.documents.get_document(policy)) == tree
        # Of those that were killed each is there whole or not at all: the check has counted its nodes.
        for summary in opened.documents.list_documents():
            assert summary.version.node_count in (50, 200, 6000)
