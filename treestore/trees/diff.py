"""What changed between two versions of a document. Pure: it says which lists of outlines it wants to see and is sent them.

Node ids of many documents are preorder numbers, so a section inserted at the front renumbers all others, and a page inserted
shifts their pages. Nodes are therefore matched by what they say. The comparison begins at the roots and goes down only where
something differs: two nodes with equal ``node_hash`` say the same down to the last node below them. The children of a matched
pair are matched as :mod:`treestore.trees.siblings` says. What finds no partner among siblings, on either side, is looked for
in the whole document, in this order:

1. Subtrees that say the same, the largest first. A heading alone (a leaf without text and summaries) counts only if there is
   no other like it and it was not, on both sides, inside of something that came or went.
2. Nodes more than half of whose children were matched, or say the same: a section that was rewritten, not what is in it (as
   the bottom-up phase of GumTree; Falleri et al., ASE 2014).
3. Nodes of equal own content, alone in that on both sides: a section that was moved and changed inside.
4. Nodes of the same id below matched parents: a node rewritten in every word.

The children of whatever is matched are matched in turn, until nothing more is found. What then has no partner was added or
removed. The answer for (b, a) is the mirror of that for (a, b).

Where two nodes say the same but are not equal in every field, the difference is below only in pages, status, metadata and the
like. It is followed while ids and section paths are the same; below a node that was renumbered nothing more is looked at, or
an insertion at the front would be a walk through the whole document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from treestore.records import Diff, NodeChange, Outline, Place, Version
from treestore.trees import siblings
from treestore.trees.siblings import Evidence, has_text, longest_increasing, own_content, pages

R = TypeVar("R")

_WANTS = 64  # pairs, or nodes, whose children are asked for at once
_COMMON = 64  # children that say the same as so many others are no evidence for their parents

_canonical = msgspec.msgpack.Encoder(order="deterministic").encode


class Want(NamedTuple):
    """The children of a node of a version (``None``: its roots) or, if ``whole``, the node and all below it: outlines in
    document order."""

    version_id: str
    node_id: str | None
    whole: bool = False


Asking = Generator[list[Want], list[list[Outline]], R]
"""A computation that yields what it wants to see (nothing: it only pauses), is sent it in the same order, and returns an
``R``."""

Pair = tuple[Outline, Outline]
Sides = tuple[dict[int, Outline], dict[int, Outline]]
"""Nodes of both versions, by their ordinals."""
_Change = tuple[Outline | None, Outline | None, tuple[str, ...]]


def compare(before: Version, after: Version) -> Asking[Diff]:
    """What changed from one version of a policy to another. See :class:`~treestore.records.Diff` for the answer."""
    sides = [before, after]
    mirrored = (after.node_hash, after.tree_hash) < (before.node_hash, before.tree_hash)
    if mirrored:
        sides.reverse()
    comparison = _Comparison(sides[0].version_id, sides[1].version_id)
    if before.tree_hash != after.tree_hash:
        yield from comparison.run()
    lists: dict[str, list[NodeChange]] = {}
    for name, changes in comparison.changes().items():
        lists[name] = comparison.recorded(changes, mirrored)
        if changes:
            yield []
    if mirrored:
        lists["added"], lists["removed"] = lists["removed"], lists["added"]
    return Diff(policy_id=before.policy_id, version_a=before.version_id, version_b=after.version_id, **lists)


# --- pairs ---------------------------------------------------------------------------------------------------------------


def changed_fields(before: Outline, after: Outline) -> tuple[str, ...]:
    """The fields in which a node says something else: content, status, and what is kept with it. Objects are compared as JSON
    is, where 1, 1.0 and true differ and the order of keys does not count."""
    names = [name for name in ("title", "summary", "prefix_summary") if getattr(before, name) != getattr(after, name)]
    if before.text_hash != after.text_hash:
        names.append("text")
    if before.validation_status != after.validation_status:
        names.append("validation_status")
    for name in ("metadata", "extra"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if (ours is not None or theirs is not None) and _canonical(ours) != _canonical(theirs):
            names.append(name)
    return tuple(names)


def repaged_fields(before: Outline, after: Outline) -> tuple[str, ...]:
    """The fields that say where a node stands in the source document, of those that differ."""
    names = ("page_start", "page_end", "page_index", "line_num")
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


def _renumbered(before: Outline, after: Outline) -> bool:
    return before.node_id != after.node_id or before.section_path != after.section_path


def _is_leaf(node: Outline) -> bool:
    return node.last_ordinal == node.ordinal


def _is_bare(node: Outline) -> bool:
    """Whether a node is a heading and nothing else."""
    return _is_leaf(node) and not (has_text(node) or node.summary or node.prefix_summary)


def _alone(ours: Iterable[Outline], theirs: Iterable[Outline], evidence: Evidence) -> list[Pair]:
    """Pairs of nodes that have the same evidence, of those that are alone in it on their side."""
    kinds: tuple[dict[Hashable, list[Outline]], dict[Hashable, list[Outline]]] = {}, {}
    for side, nodes in enumerate((ours, theirs)):
        for node in nodes:
            kinds[side].setdefault(evidence(node), []).append(node)
    both = [(same, kinds[1].get(what, ())) for what, same in kinds[0].items() if what is not None]
    return [(same[0], others[0]) for same, others in both if len(same) == len(others) == 1]


def _node_id(node: Outline) -> str:
    return node.node_id


def _paired(ours: Sequence[Outline], theirs: Sequence[Outline]) -> list[Pair]:
    """Pairs of nodes that say the same, as many as there can be: on the same pages, of the same ids, then in order."""
    found: list[Pair] = []
    for evidence in (pages, _node_id, None):
        found += zip(ours, theirs, strict=False) if evidence is None else _alone(ours, theirs, evidence)
        taken = {node.ordinal for node, _ in found}, {node.ordinal for _, node in found}
        ours = [node for node in ours if node.ordinal not in taken[0]]
        theirs = [node for node in theirs if node.ordinal not in taken[1]]
    return found


# --- the comparison ------------------------------------------------------------------------------------------------------


class _Comparison:
    """Two versions and what is known of their nodes so far; sides are 0 and 1, nodes of a side go by their ordinals."""

    def __init__(self, *version_ids: str) -> None:
        self._version_ids = version_ids
        self._nodes: Sides = {}, {}
        self._mates: tuple[dict[int, int], dict[int, int]] = {-1: -1}, {-1: -1}  # the roots' parents are each other's
        self._waiting: list[Pair] = []  # matched pairs that differ below
        self._families: dict[int, tuple[Sequence[Outline], Sequence[Outline]]] = {}  # matched siblings, by the first parent
        self._tops: Sides = {}, {}  # siblings without a partner
        self._loose: Sides = {}, {}  # they and all below them, once read
        self._opened = False
        self._changed: list[_Change] = []
        self._repaged: list[_Change] = []

    def run(self) -> Asking[None]:
        """Match all that can be matched."""
        roots = yield [Want(version_id, None) for version_id in self._version_ids]
        self._match_siblings(*roots)
        yield from self._descend()
        yield from self._match_tops()
        yield from self._open_tops()
        found = self._equal_loose()
        while True:
            for pair in found:
                self._meet(*pair)
            yield from self._descend()
            found = yield from self._next_found()
            if not found:
                return

    def _next_found(self) -> Asking[list[Pair]]:
        """The next pairs, by the strongest evidence that there is."""
        for look in (self._rewritten, self._same_content, self._similar_loose, self._same_id):
            if self._loose[0] and self._loose[1] and (found := look()):
                return found
            yield []
        return []

    def _meet(self, before: Outline, after: Outline) -> None:
        """Make two nodes each other's partners, note how they differ, and have their children compared."""
        self._mates[0][before.ordinal] = after.ordinal
        self._mates[1][after.ordinal] = before.ordinal
        self._settle(0, before, before.node_hash == after.node_hash)
        self._settle(1, after, before.node_hash == after.node_hash)
        self._note(before, after)

    def _settle(self, side: int, node: Outline, whole: bool) -> None:
        """A node has its partner, and if the two say the same, so has each node below it."""
        self._tops[side].pop(node.ordinal, None)
        if self._loose[side]:
            for ordinal in range(node.ordinal, node.last_ordinal + 1 if whole else node.ordinal + 1):
                self._loose[side].pop(ordinal, None)

    def _note(self, before: Outline, after: Outline) -> None:
        if before.tree_hash == after.tree_hash:
            return
        if changed := changed_fields(before, after):
            self._changed.append((before, after, changed))
        if repaged := repaged_fields(before, after):
            self._repaged.append((before, after, repaged))
        followed = before.node_hash != after.node_hash or not _renumbered(before, after)
        if followed and not (_is_leaf(before) and _is_leaf(after)):
            self._waiting.append((before, after))

    def _descend(self) -> Asking[None]:
        """Compare the children of the pairs that wait, and of those that are found among them."""
        while self._waiting:
            batch, self._waiting = self._waiting[:_WANTS], self._waiting[_WANTS:]
            wants = [Want(self._version_ids[side], node.node_id) for pair in batch for side, node in enumerate(pair)]
            lists = yield wants
            for (before, after), ours, theirs in zip(batch, lists[::2], lists[1::2], strict=True):
                if before.node_hash == after.node_hash:
                    self._keep(0, ours)
                    self._keep(1, theirs)
                    for pair in zip(ours, theirs, strict=True):
                        self._note(*pair)
                else:
                    self._match_siblings(ours, theirs)

    def _keep(self, side: int, nodes: Iterable[Outline]) -> None:
        self._nodes[side].update((node.ordinal, node) for node in nodes)

    def _match_siblings(self, *lists: Sequence[Outline]) -> None:
        for side in (0, 1):
            self._keep(side, lists[side])
        if lists[0]:
            self._families[lists[0][0].parent_ordinal] = lists[0], lists[1]
        pairs = self._known_pairs(*lists)
        known = set(pairs)
        ours, theirs = (
            [place for place, node in enumerate(lists[side]) if node.ordinal not in self._mates[side]] for side in (0, 1)
        )
        siblings.match(lists[0], lists[1], pairs, (ours, theirs))
        for i, j in pairs.items():
            if i not in known:
                self._meet(lists[0][i], lists[1][j])
        if not self._opened:
            for side, free in enumerate((ours, theirs)):
                self._tops[side].update((lists[side][place].ordinal, lists[side][place]) for place in free)

    def _known_pairs(self, before: Sequence[Outline], after: Sequence[Outline]) -> dict[int, int]:
        """The partners in two lists, by their places."""
        at = {node.ordinal: place for place, node in enumerate(after)}
        mates = ((place, self._mates[0].get(node.ordinal)) for place, node in enumerate(before))
        return {place: at[mate] for place, mate in mates if mate in at}

    # --- nodes without a partner among siblings --------------------------------------------------------------------------

    def _match_tops(self) -> Asking[None]:
        """Match siblings that found no partner with those of other parents, without reading all that is below them."""
        children: tuple[dict[int, list[bytes]], dict[int, list[bytes]]] = {}, {}
        while self._tops[0] and self._tops[1]:
            found = self._equal(self._tops, lambda ours, theirs: [] if _is_bare(ours[0]) else _paired(ours, theirs))
            for pair in found:
                self._meet(*pair)
            unread = [
                (side, node)
                for side in (0, 1)
                for node in self._tops[side].values()
                if not _is_leaf(node) and node.ordinal not in children[side]
            ]
            for start in range(0, len(unread), _WANTS):
                part = unread[start : start + _WANTS]
                lists = yield [Want(self._version_ids[side], node.node_id) for side, node in part]
                for (side, node), below in zip(part, lists, strict=True):
                    children[side][node.ordinal] = [child.node_hash for child in below]
            rewritten = self._alike_below(
                {node.ordinal: children[0].get(node.ordinal, []) for node in self._tops[0].values()},
                {node.ordinal: children[1].get(node.ordinal, []) for node in self._tops[1].values()},
            )
            for pair in rewritten:
                self._meet(*pair)
            similar = [] if found or rewritten else self._similar(self._tops, inner=True)
            for pair in similar:
                self._meet(*pair)
            if not (found or rewritten or similar):
                return
            yield from self._descend()

    def _open_tops(self) -> Asking[None]:
        """Read all that is below the siblings that found no partner."""
        tops = [(side, node) for side in (0, 1) for node in self._tops[side].values()]
        for start in range(0, len(tops), _WANTS):
            part = tops[start : start + _WANTS]
            inner = [(side, node) for side, node in part if not _is_leaf(node)]
            lists = (yield [Want(self._version_ids[side], node.node_id, whole=True) for side, node in inner]) if inner else []
            for (side, _), nodes in zip(inner, lists, strict=True):
                self._keep(side, nodes)
                self._loose[side].update((node.ordinal, node) for node in nodes)
            for side, node in part:
                self._loose[side][node.ordinal] = node
        self._opened = True

    def _equal_loose(self) -> list[Pair]:
        def pairs(ours: Sequence[Outline], theirs: Sequence[Outline]) -> list[Pair]:
            if not _is_bare(ours[0]):
                return _paired(ours, theirs)
            alone = len(ours) == len(theirs) == 1
            found = [(ours[0], theirs[0])] if alone else _alone(ours, theirs, pages)
            return [pair for pair in found if pair[0].ordinal in self._tops[0] or pair[1].ordinal in self._tops[1]]

        return self._equal(self._loose, pairs)

    def _equal(self, nodes: Sides, pairs: Callable[[Sequence[Outline], Sequence[Outline]], list[Pair]]) -> list[Pair]:
        """Nodes that say the same, the largest subtrees first; none of them below another one. ``pairs`` says which of those
        that say the same belong together."""
        kinds: tuple[dict[bytes, list[Outline]], dict[bytes, list[Outline]]] = {}, {}
        for side in (0, 1):
            for node in sorted(nodes[side].values(), key=_largest_first):
                kinds[side].setdefault(node.node_hash, []).append(node)
        covered: tuple[set[int], set[int]] = set(), set()
        found: list[Pair] = []
        for identity, ours in kinds[0].items():
            theirs = [node for node in kinds[1].get(identity, ()) if node.ordinal not in covered[1]]
            ours = [node for node in ours if node.ordinal not in covered[0]]
            for pair in pairs(ours, theirs) if ours and theirs else ():
                found.append(pair)
                for side, node in enumerate(pair):
                    covered[side].update(range(node.ordinal + 1, node.last_ordinal + 1))
        return found

    def _rewritten(self) -> list[Pair]:
        """Loose nodes more than half of whose children are partners, or say the same."""
        below: tuple[dict[int, list[bytes]], dict[int, list[bytes]]] = {}, {}
        for side in (0, 1):
            for ordinal, node in self._nodes[side].items():
                if node.parent_ordinal in self._loose[side]:
                    mate = self._mates[side].get(ordinal)
                    mark = node.node_hash if mate is None else b"%d" % (mate if side else ordinal)
                    below[side].setdefault(node.parent_ordinal, []).append(mark)
        return self._alike_below(*below)

    def _alike_below(self, ours: dict[int, list[bytes]], theirs: dict[int, list[bytes]]) -> list[Pair]:
        """Nodes that have more than half of their children's marks in common, of at least one."""
        holders: dict[bytes, list[int]] = {}
        for ordinal, marks in theirs.items():
            for mark in marks:
                holders.setdefault(mark, []).append(ordinal)
        taken: set[int] = set()
        found: list[Pair] = []
        for ordinal, marks in ours.items():
            votes = Counter(
                holder for mark in marks if len(holders.get(mark, ())) <= _COMMON for holder in holders.get(mark, ())
            )
            for holder, _ in votes.most_common(3):
                fewer, more = sorted((len(marks), len(theirs[holder])))
                if holder in taken or 2 * fewer <= more:
                    continue
                shared = (Counter(marks) & Counter(theirs[holder])).total()
                if 2 * shared > more:
                    taken.add(holder)
                    found.append((self._nodes[0][ordinal], self._nodes[1][holder]))
                    break
        return found

    def _same_content(self) -> list[Pair]:
        """Loose nodes that alone say the same themselves, and more than a heading, or have children both."""
        pairs = _alone(self._loose[0].values(), self._loose[1].values(), own_content)
        return [pair for pair in pairs if not any(map(_is_bare, pair)) and _is_leaf(pair[0]) == _is_leaf(pair[1])]

    def _similar_loose(self) -> list[Pair]:
        return self._similar(self._loose)

    def _similar(self, nodes: Sides, *, inner: bool = False) -> list[Pair]:
        """Nodes below matched parents that have a title, a text or summaries in common; ``inner``: of those with children."""
        found: list[Pair] = []
        parents = {node.parent_ordinal for node in nodes[0].values()}
        for lists in [self._families[parent] for parent in parents if parent in self._families]:
            pairs = self._known_pairs(*lists)
            known = set(pairs)
            ours, theirs = (
                [
                    place
                    for place, node in enumerate(lists[side])
                    if node.ordinal in nodes[side] and not (inner and _is_leaf(node))
                ]
                for side in (0, 1)
            )
            siblings.match(*lists, pairs, (ours, theirs), weakly=True)
            found += [(lists[0][i], lists[1][j]) for i, j in pairs.items() if i not in known]
        return found

    def _same_id(self) -> list[Pair]:
        """Loose nodes of the same id whose parents are partners."""
        by_id = {node.node_id: node for node in self._loose[1].values()}
        found: list[Pair] = []
        for node in self._loose[0].values():
            other = by_id.get(node.node_id)
            if other is not None and self._mates[0].get(node.parent_ordinal) == other.parent_ordinal:
                found.append((node, other))
        return found

    # --- the answer ------------------------------------------------------------------------------------------------------

    def changes(self) -> dict[str, list[_Change]]:
        """What was found, by the field of :class:`~treestore.records.Diff`."""
        return {
            "added": [(None, node, ()) for node in self._loose[1].values()],
            "removed": [(node, None, ()) for node in self._loose[0].values()],
            "changed": self._changed,
            "moved": self._moved(),
            "repaged": self._repaged,
        }

    def _moved(self) -> list[_Change]:
        """The pairs whose parents are not each other's partners, or that left the order of their siblings."""
        ours, theirs = self._nodes
        mates = self._mates[0]
        moved = {
            ordinal
            for ordinal, mate in mates.items()
            if ordinal >= 0 and mates.get(ours[ordinal].parent_ordinal) != theirs[mate].parent_ordinal
        }
        for before, after in self._families.values():
            pairs = self._known_pairs(before, after)
            stayed = [before[place].ordinal for place in pairs]
            kept = longest_increasing(list(pairs.values()))
            moved.update(set(stayed).difference(stayed[position] for position in kept))
        return [(ours[ordinal], theirs[mates[ordinal]], ()) for ordinal in moved]

    def recorded(self, changes: Iterable[_Change], mirrored: bool) -> list[NodeChange]:
        """Changes as records in document order: that of the later version, or of the earlier where a node is only there."""
        found: list[NodeChange] = []
        for ours, theirs, fields in changes:
            places = self._place(0, ours), self._place(1, theirs)
            before, after = places[::-1] if mirrored else places
            found.append(NodeChange(before=before, after=after, fields=fields))
        return sorted(found, key=_in_document_order)

    def _place(self, side: int, node: Outline | None) -> Place | None:
        if node is None:
            return None
        titles = [node.title]
        above = self._nodes[side].get(node.parent_ordinal)
        while above is not None:
            titles.append(above.title)
            above = self._nodes[side].get(above.parent_ordinal)
        return Place(
            node_id=node.node_id,
            ordinal=node.ordinal,
            section_path=node.section_path,
            path=tuple(reversed(titles)),
            page_start=node.page_start,
            page_end=node.page_end,
            page_index=node.page_index,
            line_num=node.line_num,
        )


def _in_document_order(change: NodeChange) -> int:
    place = change.after or change.before
    assert place is not None
    return place.ordinal


def _largest_first(node: Outline) -> tuple[int, int]:
    return node.ordinal - node.last_ordinal, node.ordinal
