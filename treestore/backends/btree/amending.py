"""Nodes of a version amended in place. What other versions have, too, is left to them: the version gets its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from treestore.backends.btree.content import check_numbers, free, layout_key, live_layout, most_runs, other_layouts
from treestore.backends.btree.keyspace import (
    HEADS,
    LAYOUTS,
    LENGTHS,
    NODES,
    POSTINGS,
    TEXTS,
    Head,
    Layout,
    decode_outline,
    encode,
    encode_row,
    number_key,
    posting_key,
    row_prefix,
    row_text_hash,
    two_numbers,
)
from treestore.backends.btree.layers import MOST_LAYERS, entries, lengths_at, row_at
from treestore.backends.btree.overlay import Overlay
from treestore.backends.btree.runs import Run, Runs, names, number_at, numbers_of, with_number
from treestore.errors import Corrupted
from treestore.operations import AmendNodes, TermChange, check_amended
from treestore.records import Version
from treestore.search import postings
from treestore.search.postings import SEGMENT_NODES


def amend(view: Overlay, write: AmendNodes, take_content: Callable[[], int]) -> None:
    """Replace nodes of a version, found by their ordinals; ``take_content`` gives the next content number. Raises NotFound,
    InvalidInput, Unavailable."""
    version = write.version
    head, before = live_layout(view, version)
    others = other_layouts(view, head, version.version_id)
    rows = _Values(NODES, before.rows, [run for other in others for run in other.rows], head.next_row)
    texts = _Values(TEXTS, before.texts, [run for other in others for run in other.texts], head.next_text)
    prefix = row_prefix(version.policy_id, version.version_id)
    for node in write.nodes:
        old = view.get(NODES, rows.key(head, node.ordinal)) if 0 <= node.ordinal < before.nodes else None
        check_amended(node, None if old is None else decode_outline(prefix, old))
        view.put(NODES, rows.own_key(head, node.ordinal, version), encode_row(node))
        if node.text_hash != row_text_hash(old or b""):
            key = texts.own_key(head, node.ordinal, version)
            if node.text is None:
                view.delete(TEXTS, key)
            else:
                view.put(TEXTS, key, encode(node.text))
    layout = msgspec.structs.replace(before, rows=rows.runs, texts=texts.runs)
    head = msgspec.structs.replace(head, next_text=texts.following, next_row=rows.following)
    if len(layout.rows) > most_runs(layout.nodes):
        head, layout = _in_one_run(view, head, layout, others, version)
    if write.terms:
        layout = _with_own_postings(view, head, layout, others, take_content)
    for change in write.terms:
        _amend_postings(view, layout, change)
    if layout != before:
        view.put(LAYOUTS, layout_key(head, version.version_id), encode(layout))
    view.put(HEADS, version.policy_id.encode(), encode(head))
    view.amended.setdefault(layout.content, set()).update([node.ordinal for node in write.nodes])


class _Values:
    """Where the rows, or the texts, of a version lie that is being amended: ``tree``, ``runs``, those of the ``others`` and
    the ``following`` number of the policy."""

    def __init__(self, tree: int, runs: Runs, others: Sequence[Run], following: int) -> None:
        self.tree = tree
        self.runs = runs
        self.others = others
        self.following = following

    def key(self, head: Head, index: int) -> bytes:
        """The key of an index."""
        return two_numbers(head.number, number_at(self.runs, index))

    def own_key(self, head: Head, index: int, version: Version) -> bytes:
        """The key that only this index of this version has from now on: a new one, if need be."""
        number = number_at(self.runs, index)
        if names(self.runs, number) > 1 or names(self.others, number):
            number, self.following = self.following, self.following + 1
            check_numbers(version, self.following, self.tree)
            self.runs = with_number(self.runs, index, number)
        return two_numbers(head.number, number)


def _in_one_run(view: Overlay, head: Head, layout: Layout, others: Sequence[Layout], version: Version) -> tuple[Head, Layout]:
    """The version's rows written anew, which shares none of them any more."""
    run = Run(0, head.next_row, layout.nodes)
    check_numbers(version, run.end, NODES)
    for old, new in zip(numbers_of(layout.rows), range(run.number, run.end), strict=True):
        row = view.get(NODES, two_numbers(head.number, old))
        if row is None:
            raise Corrupted(f"a row of policy {version.policy_id!r} version {version.version_id!r} is missing")
        view.put(NODES, two_numbers(head.number, new), row)
    anew = msgspec.structs.replace(layout, rows=(run,))
    free(view, head, layout, [*others, anew])
    return msgspec.structs.replace(head, next_row=run.end), anew


def _with_own_postings(
    view: Overlay, head: Head, layout: Layout, others: Sequence[Layout], take_content: Callable[[], int]
) -> Layout:
    """The layout with a first layer of postings that no other version has."""
    layers = layout.postings
    if all(layers[0] not in other.postings for other in others):
        return layout
    own = take_content()
    if len(layers) < MOST_LAYERS:
        return msgspec.structs.replace(layout, postings=(own, *layers))
    for tree in (POSTINGS, LENGTHS):  # what all but the last one changed
        view.put_all(tree, [(number_key(own, key), raw) for key, raw in list(entries(view.entries, tree, layers[:-1]))])
    anew = msgspec.structs.replace(layout, postings=(own, layers[-1]))
    free(view, head, layout, [*others, anew])
    return anew


def _amend_postings(view: Overlay, layout: Layout, change: TermChange) -> None:
    """Change the rows of postings that a change of one node's terms is about, in the first layer."""
    segment, layers = change.ordinal // SEGMENT_NODES, layout.postings

    def row_of(term: str) -> tuple[str, bytes]:
        found = row_at(partial(view.floor, POSTINGS), layers, segment, term)
        if found is None:
            raise Corrupted(f"segment {segment} of content {layers[0]} has no postings")
        return found

    for name, row in postings.amended(row_of, change).items():
        key = posting_key(layers[0], segment, name)
        if row is None and len(layers) == 1:
            view.delete(POSTINGS, key)
        else:
            view.put(POSTINGS, key, row or postings.EMPTY_ROW)
    lengths = lengths_at(view.get, layers, segment)
    if lengths is None:
        raise Corrupted(f"segment {segment} of content {layers[0]} has no lengths of nodes")
    size = postings.segment_size(layout.nodes, segment)
    view.put(LENGTHS, two_numbers(layers[0], segment), postings.amended_lengths(lengths, size, change))
