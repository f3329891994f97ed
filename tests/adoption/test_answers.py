"""Trees that the old service wrote are answered as the store in memory answers them, given the same trees: every question, by
both faces, before anything is derived, when it is, when the service has ingested again, and when that is repaired."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

import treestore
from tests.adoption import adopting, questions, trees
from tests.adoption.old_service.service import Service, Tree
from tests.clock import SetClock
from tests.postgres.faults import FACES, Face
from tests.stateful.test_differential import HOSTILE
from tests.stores import KINDS, SyncStore

WORDS = ["care", "revenue", "attention residual", "M54.5", "税収", "the company", "unsaidword", "title of a"]
LATER = datetime.now(UTC) + timedelta(days=400)
Documents = dict[tuple[str, str], Tree]


def hostile() -> Tree:
    """Titles and texts that quoting, collations and normal forms could change, under ids of the same kind."""
    rng = random.Random(3)
    ids = [text for text in HOSTILE if text and len(text) <= 100]
    roots: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for node_id in ids:
        title, summary, text = rng.choice(HOSTILE), rng.choice(HOSTILE), rng.choice([None, *HOSTILE])
        one = trees.node(node_id, title=title, summary=summary, text=text)
        (rng.choice(made)["nodes"] if made and rng.random() < 0.7 else roots).append(one)
        made.append(one)
    return roots


def first() -> Documents:
    """What the service ingests."""
    real: Documents = {(file.stem[:40], "1"): trees.real(file) for file in trees.FILES}
    return real | {
        ("manual", "1"): trees.policy("care"),
        ("manual", "2"): [*trees.policy("cares")[1:], trees.node("c", trees.node("a1"), text="care")],
        ("manual", "10"): trees.written(60, 1),
        ("é", "v"): hostile(),
        ("empty", "1"): [],
        ("deep", "1"): deep(200),
        ("again", "1"): trees.generation(1),
    }


def then() -> Documents:
    """What it ingests again."""
    return {
        ("again", "1"): trees.generation(2),
        ("manual", "2"): trees.policy("caring"),
        ("empty", "1"): trees.policy(),
        ("deep", "1"): [],
    }


def deep(levels: int) -> Tree:
    below: list[dict[str, Any]] = []
    for at in reversed(range(levels)):
        below = [trees.node(f"l{at}", *below)]
    return below


class Both:
    """The service's database, and a store in memory that is given the same."""

    def __init__(self, breadth_first: bool) -> None:
        self.url = adopting.old_url()
        self.service = Service(self.url, breadth_first=breadth_first)
        self.clock = SetClock()
        self.model = treestore.open_sync("memory://", clock=self.clock)
        self.held: Documents = {}
        self.moments: list[datetime] = [LATER]

    def ingest(self, documents: Documents) -> None:
        for at, ((policy_id, version_id), tree) in enumerate(documents.items()):
            ingest = self.service.reingest if (policy_id, version_id) in self.held else self.service.persist
            effective = datetime(2025, 1, 1) + timedelta(days=at) if at % 3 else None  # noqa: DTZ001 - as the service has it
            dated: dict[str, Any] = {"effective_date": effective} if effective else {}
            ingested_at = ingest(policy_id, version_id, tree, **dated)
            row = self.service.version(policy_id, version_id)
            self.clock.now = ingested_at.replace(tzinfo=UTC)
            self.moments += [self.clock.now, *([effective.replace(tzinfo=UTC)] if effective else [])]
            self.model.documents.store_document(
                policy_id,
                version_id,
                trees.given(tree),
                effective_date=effective,
                **{name: getattr(row, name) for name in ("pageindex_doc_id", "pdf_sha256", "markdown_ptr", "tree_json_ptr")},
            )
        self.held |= documents
        self.clock.now = LATER

    def asked(self) -> Iterator[questions.Question]:
        by_policy: dict[str, list[str]] = {}
        for (policy_id, version_id), tree in self.held.items():
            yield from questions.about_tree(policy_id, version_id, tree)
            by_policy.setdefault(policy_id, []).append(version_id)
        for policy_id, ids in by_policy.items():
            yield from questions.about_versions(policy_id, ids, self.moments[:: 3 if len(ids) > 1 else 11])
        yield from questions.about_store(WORDS)

    def assert_equal(self, store: SyncStore) -> None:
        assert questions.assert_equal_answers(self.asked(), store, self.model) > 500

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.model.close()
        self.service.engine.dispose()


@pytest.mark.parametrize("face", FACES)
def test_every_answer_is_that_of_the_store_in_memory(face: Face) -> None:
    with Both(breadth_first=face == "async") as both:
        both.ingest(first())
        adopting.upgrade(both.url)
        kind = KINDS["memory" if face == "sync" else "memory-async"]
        with kind.open(both.url, both.clock, None) as store:
            before = adopting.old_rows(both.url)
            both.assert_equal(store)
            assert adopting.old_rows(both.url) == before, "reading writes nothing"
            assert adopting.status(both.url)["derived"] == 0
            adopting.derive(both.url)
            both.assert_equal(store)
            assert store.check().problems == []
            again = then()
            both.ingest(again)
            assert adopting.status(both.url)["stale"] == len(again)
            both.assert_equal(store)
            adopting.repair(both.url)
            assert adopting.status(both.url)["derived"] == len(both.held)
            both.assert_equal(store)
            assert store.check().problems == []
