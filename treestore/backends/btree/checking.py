"""A check of the whole store: first its pages (:mod:`.engine.check`), then what is in them.

Of the content: every record decodes and has its index entries and no other entry exists; every version that is not deleted
has a layout, its nodes, page texts and texts, and no other rows exist; everything derived, hashes included, is as derived
again from what was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.check import check
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.format import Meta
from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.kept import NodeCache
from treestore.backends.btree.keyspace import (
    BY_INGESTION,
    COUNTERS,
    FAMILIES,
    GROUPS,
    HEADS,
    INTERVALS,
    LAYOUTS,
    LENGTHS,
    NODE_IDS,
    NODES,
    PART_TREES,
    POSTINGS,
    TEXTS,
    TREES,
    VERSIONS,
    Head,
    decode,
    index_key,
    interval_key,
    under,
)
from treestore.backends.btree.nodes import run
from treestore.backends.btree.policies import Content, Policy
from treestore.backends.btree.reads import page_texts, stats
from treestore.backends.btree.runs import number_at, numbers_of
from treestore.backends.btree.search import analyzers, stored_segments
from treestore.catalog import TABLES
from treestore.errors import TreestoreError
from treestore.operations import Stats
from treestore.records import CheckReport, Node
from treestore.search import soundness as search_soundness
from treestore.search.postings import by_node
from treestore.trees import intervals, soundness


def check_store(engine: Engine) -> Generator[None, None, CheckReport]:
    """Check everything at one committed moment; pauses after each page and each version."""
    with engine.checkpointed() as moment:
        return (yield from check_moment(*moment))


def check_moment(
    state: State, meta: Meta, free: list[Run], chain: list[Run]
) -> Generator[None, None, CheckReport]:
    """Check a state that lies wholly in its data file, with its meta page, the runs that are free in it and the pages of its
    free list; nobody may write to the file meanwhile."""
    pages = yield from check(state, meta, free, chain)
    counts = {
        "pages": meta.page_count,
        "pages_free": pages.free_pages,
        "pages_leaf": pages.leaf_pages,
        "pages_branch": pages.branch_pages,
        "pages_overflow": pages.overflow_pages,
        "versions": state.count(VERSIONS),
        "nodes": state.count(NODES),
        "texts": state.count(TEXTS),
    }
    problems = list(pages.problems)
    if not problems:
        try:
            counts["nodes"] = stats(state, Stats()).nodes
            problems += _check_records(state)
            problems += yield from _check_policies(state)
        except TreestoreError as error:
            problems.append(str(error))
    return CheckReport(ok=not problems, problems=problems, counts=counts)


def _check_records(state: State) -> list[str]:
    """Records against their index entries, both ways."""
    problems = []
    for record, family in FAMILIES.items():
        table = TABLES[record]
        for name, tree in family.indexes.items():
            expected = set()
            for key, raw in state.scan(family.tree, b"", None):
                found = decode(record, raw)
                if keycode.encode(table.key_of(found)) != key:
                    problems.append(f"{table.name}: the record {table.key_of(found)!r} lies under another key")
                expected.add(index_key(table, name, found))
            entries = {key for key, _ in state.scan(tree, b"", None)}
            problems += [f"{table.name}: index {name} lacks {keycode.decode(key)!r}" for key in expected - entries]
            problems += [f"{table.name}: index {name} has {keycode.decode(key)!r} and no record" for key in entries - expected]
    return problems


def _check_policies(state: State) -> Generator[None, None, list[str]]:
    """Every policy with its versions; and that there are no rows besides."""
    problems: list[str] = []
    nothing_kept = NodeCache(0)
    by_analyzer: Counter[str] = Counter()
    sums = dict.fromkeys(TREES.keys() - {COUNTERS, BY_INGESTION, HEADS, GROUPS}, 0)
    for key, raw in state.scan(HEADS, b"", None):
        policy_id, head = key.decode(), decode(Head, raw)
        policy = Policy(state, policy_id, head, nothing_kept)
        used = _Used()
        for content in policy.contents.values():
            sums[VERSIONS] += 1
            by_analyzer.update([content.version.analyzer] if content.version.analyzer else [])
            problems += _check_version(state, content, used, sums)
            yield
        for tree, kind, numbers, following in (
            (NODES, "row", used.rows, head.next_row),
            (TEXTS, "text", used.texts, head.next_text),
        ):
            stored = {int.from_bytes(name[4:], "big") for name, _ in state.scan(tree, *under(head.number))}
            sums[tree] += len(stored)
            name = f"policy {policy_id!r}: {kind}"
            problems += [f"{name} {number} belongs to no version" for number in sorted(stored - numbers)[:10]]
            problems += [f"{name} {number} is still to be given" for number in sorted(stored)[-1:] if number >= following]
    if analyzers(state) != by_analyzer:
        problems.append(f"the counters of versions by analyzer are {analyzers(state)}, there are {dict(by_analyzer)}")
    for tree, total in sums.items():
        if state.count(tree) != total:
            problems.append(f"{TREES[tree]}: {state.count(tree)} entries, of which {total} belong to a version")
    return problems


class _Used:
    """What versions of a policy have: numbers of rows and texts, and of contents by part and for postings."""

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.texts: set[int] = set()
        self.parts: set[tuple[int, int]] = set()
        self.layers: set[int] = set()


def _check_version(state: State, content: Content, used: _Used, sums: dict[int, int]) -> list[str]:
    version, layout = content.version, content.layout
    if layout is None:
        return soundness.problems(version, None, None)
    sums[LAYOUTS] += 1
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if version.deleted_at is not None:
        return [f"{name}: it was deleted, yet nodes are kept for it"]
    nodes = finished(run(state, content, Node, 0, layout.nodes - 1))
    pages = finished(page_texts(state, content))
    problems = soundness.problems(version, nodes, pages)
    number = layout.parts.node_ids
    ids = {key[4:].decode(): int.from_bytes(raw, "big") for key, raw in state.scan(NODE_IDS, *under(number))}
    if ids != {node.node_id: node.ordinal for node in nodes}:
        problems.append(f"{name}: the index of node ids does not fit the nodes")
    number = layout.parts.intervals
    ranges = [(interval_key(number, depth, index), row) for depth, index, row in intervals.rows(nodes)]
    if list(state.scan(INTERVALS, *under(number))) != ranges:
        problems.append(f"{name}: the page intervals do not fit the nodes")
    segments = stored_segments(state, content)
    terms = by_node(segments, len(nodes)) if segments else []
    problems += search_soundness.problems(version, nodes, terms)
    counts = ((layout.nodes,), (layout.pages, layout.pages), (len(ranges),))
    for part, number in enumerate(layout.parts):
        for tree, count in zip(PART_TREES[part], counts[part], strict=True):
            sums[tree] += count if (part, number) not in used.parts else 0
        used.parts.add((part, number))
    for number in set(layout.postings) - used.layers:
        used.layers.add(number)
        for tree in (POSTINGS, LENGTHS):
            sums[tree] += sum(1 for _ in state.scan(tree, *under(number)))
    used.rows.update(numbers_of(layout.rows))
    used.texts.update(number_at(layout.texts, node.ordinal) for node in nodes if node.text_hash is not None)
    used.texts.update(number_at(layout.texts, layout.nodes + i) for i in range(layout.pages))
    return problems
