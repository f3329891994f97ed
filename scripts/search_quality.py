"""Prints where search finds what a person means: the questions of tests/search/questions.json, asked of the shipped documents.

    .venv/bin/python scripts/search_quality.py > docs/search-quality.md

For each question the place at which the first node that is meant comes, of the first ten ("-": not among them).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import treestore  # noqa: E402 - the checkout's own, wherever this is run from
from treestore import SyncTreeStore, pageindex  # noqa: E402

DOCUMENTS = ROOT / "tests" / "data" / "pageindex"
QUESTIONS = ROOT / "tests" / "search" / "questions.json"
FIRST, SHOWN = 3, 10

HEAD = """# Search quality

Questions that were written by hand from reading the seven documents that treestore is tested with, before there was a ranking;
for each the node that a reader would point at, and the place at which a search has it. Three of the documents have titles
only, three have summaries, one has texts. `tests/search/test_quality.py` asks them all on every store, and holds
what is found to a brute-force BM25, to the bit. This page is what `scripts/search_quality.py` prints.
"""


def place(store: SyncTreeStore, policy: str, question: str, node_ids: list[str]) -> int | None:
    """The place, from 1, of the first hit that is meant; None if there is none among those that are looked at."""
    hits = store.documents.search_nodes(policy, question, limit=SHOWN)
    return next((at for at, hit in enumerate(hits, 1) if hit.node.node_id in node_ids), None)


def lines() -> Iterator[str]:
    """The page, line by line."""
    questions = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    with treestore.open_sync("memory://") as store:
        for path in sorted(DOCUMENTS.glob("*.json")):
            policy = path.name.removesuffix(".json").removesuffix("_structure")
            store.documents.store_document(policy, "1", pageindex.read(path).nodes)
        places = [place(store, asked["policy"], asked["question"], asked["node_ids"]) for asked in questions]
    first = sum(at == 1 for at in places)
    among = sum(at is not None and at <= FIRST for at in places)
    yield from HEAD.splitlines()
    yield ""
    yield f"Of {len(places)} questions {first} have it first and {among} among the first {FIRST}."
    yield ""
    yield "| document | question | node | place |"
    yield "|---|---|---|---:|"
    for asked, at in zip(questions, places, strict=True):
        why = f" ({asked['miss']})" if "miss" in asked else ""
        nodes = " or ".join(asked["node_ids"])
        yield f"| {asked['policy']} | {asked['question']}{why} | {nodes} | {at or '-'} |"


if __name__ == "__main__":
    print("\n".join(lines()))
