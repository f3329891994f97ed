"""What is asked of a store about a document, as data, and what of an answer must be equal on two stores.

Times and revisions of a version's row are a store's own history; all else must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from tests.adoption.old_service.service import Tree
from tests.stateful.test_machine import answered
from treestore.records import DocumentSummary, TemporalLookup, Version

OWN = dict.fromkeys(("created_at", "updated_at", "ingested_at"), datetime(2000, 1, 1, tzinfo=UTC)) | {
    "facts": (),
    "revision": 0,
}
"""What each store says of a version by its own history."""


class Question(NamedTuple):
    """A verb, of which repository, and its arguments."""

    repository: str
    verb: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()

    def of(self, store: Any) -> Any:
        """Ask a store or a snapshot; the answer, or of an asynchronous one what is to be awaited for it."""
        target = getattr(store, self.repository) if self.repository else store
        return getattr(target, self.verb)(*self.arguments, **dict(self.keywords))


def documents(verb: str, *arguments: Any, **keywords: Any) -> Question:
    return Question("documents", verb, arguments, tuple(keywords.items()))


def versions(verb: str, *arguments: Any, **keywords: Any) -> Question:
    return Question("versions", verb, arguments, tuple(keywords.items()))


def about_tree(policy_id: str, version_id: str | None, tree: Tree) -> Iterator[Question]:
    """Every kind of question about a version that holds this tree."""
    ref: dict[str, Any] = {} if version_id is None else {"version_id": version_id}
    ids = [one["node_id"] for one in _all(tree)]
    some = [*ids[:: max(len(ids) // 5, 1)], *ids[-1:], "nobody"]
    yield documents("get_document", policy_id, **ref)
    yield documents("get_nodes", policy_id, ids[:100], **ref)
    yield documents("get_outlines", policy_id, some[:-1], **ref)
    yield documents("get_children", policy_id, **ref)
    for depth in (None, 0, 1, 2):
        yield documents("get_outline", policy_id, None, depth, **ref)
    for node_id in some:
        yield documents("get_node", policy_id, node_id, **ref)
        yield documents("get_children", policy_id, node_id, **ref)
        yield documents("get_subtree", policy_id, node_id, **ref)
        yield documents("get_outline", policy_id, node_id, 1, **ref)
        yield documents("get_ancestor_path", policy_id, node_id, **ref)
    for page in _pages(tree):
        yield documents("get_nodes_by_page", policy_id, page, **ref)
        yield documents("get_nodes_by_pages", policy_id, page, page + 3, **ref)
    for query in _queries(tree):
        yield documents("search_nodes", policy_id, query, limit=20, **ref)
    yield documents("get_page_texts", policy_id, **ref)


def about_versions(policy_id: str, ids: Sequence[str], moments: Sequence[datetime]) -> Iterator[Question]:
    """Questions about the versions of a policy, at and around these moments."""
    yield versions("list", policy_id, include_deleted=True)
    yield versions("latest", policy_id)
    for version_id in ids:
        yield versions("get", policy_id, version_id)
    for before in ids:
        for after in ids:
            yield versions("diff", policy_id, before, after)
    for moment in moments:
        for at in (moment, moment - timedelta(microseconds=1)):
            yield versions("get_version_as_of", policy_id, at)
            yield versions("temporal_lookup", policy_id, at)


def about_store(words: Sequence[str]) -> Iterator[Question]:
    """Questions about all policies."""
    yield documents("list_documents")
    yield documents("list_documents", after="m", limit=2)
    for word in words:
        yield documents("search_documents", word, 10)
    yield Question("", "stats")


def told(ask: Callable[[], Any]) -> Any:
    """An answer, or the error that stands for it, without what is a store's own."""
    return comparable(answered(ask))


def comparable(answer: Any) -> Any:
    """An answer without what is a store's own."""
    match answer:
        case Version():
            return msgspec.structs.replace(answer, **OWN)
        case list():
            return [comparable(each) for each in answer]
        case DocumentSummary() | TemporalLookup():
            parts = {name: comparable(getattr(answer, name)) for name in answer.__struct_fields__}
            return msgspec.structs.replace(answer, **parts)
        case msgspec.Struct() if hasattr(answer, "version"):
            return msgspec.structs.replace(answer, version=comparable(answer.version))
        case tuple() if len(answer) == 2 and isinstance(answer[1], str):  # an error; tombstones tell their time
            return answer[0], re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?", "(time)", answer[1])
        case _:
            return answer


def assert_equal_answers(asked: Iterator[Question], store: Any, model: Any) -> int:
    """Ask both; every answer is equal, to the last bit. The number of questions."""
    count = 0
    for question in asked:
        found, expected = told(lambda q=question: q.of(store)), told(lambda q=question: q.of(model))  # type: ignore[misc]
        assert found == expected, question
        count += 1
    return count


def _all(tree: Tree) -> Iterator[Any]:
    waiting = list(reversed(tree))
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(one["nodes"])


def _pages(tree: Tree) -> list[int]:
    pages = {page for one in _all(tree) for page in (one.get("page_start"), one.get("page_end")) if page is not None}
    ordered = sorted(pages)
    return [*ordered[:: max(len(ordered) // 4, 1)], 99]


def _queries(tree: Tree) -> list[str]:
    """A common word, a rare one, several, those of a title, and one that nobody says."""
    said = [word for one in _all(tree) for word in f"{one['title']} {one.get('text') or ''}".split()]
    some = said[:: max(len(said) // 6, 1)]
    return [word for word in (*some, " ".join(some[:3]), "unsaidword") if word.strip()]
