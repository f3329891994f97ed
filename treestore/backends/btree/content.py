"""What a version's content is in the store's trees: laid out, replaced, deleted.

Versions of a policy share what is equal. A row or a text is written once for all versions that have it in succession, and
deleted with the last version that maps its number; so is a part (:data:`.keyspace.PART_TREES`), as a whole, and so is a layer
of postings.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import repeat, zip_longest

import msgspec

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.keyspace import (
    HEADS,
    INTERVALS,
    LAYOUTS,
    LENGTHS,
    MAX_NUMBER,
    NODE_IDS,
    NODES,
    PAGE_NUMBERS,
    PAGES,
    PART_TREES,
    POSTINGS,
    TEXTS,
    VERSIONS,
    Head,
    Layout,
    PageRow,
    Parts,
    decode,
    encode,
    encode_row,
    interval_key,
    number_key,
    one_number,
    row_text_hash,
    row_tree_hash,
    two_numbers,
    under,
)
from treestore.backends.btree.layers import MOST_LAYERS, Layers, Segments, all_of, changed
from treestore.backends.btree.overlay import Entry, Overlay
from treestore.backends.btree.runs import Run, Runs, numbers_of, outside, runs_of
from treestore.errors import Unavailable
from treestore.operations import ReplaceVersion
from treestore.records import Version
from treestore.trees import intervals, timeline

_FEW_RUNS = 8


def read_head(view: Overlay, policy_id: str) -> Head | None:
    """The policy's head; None if there never was such a policy."""
    raw = view.get(HEADS, policy_id.encode())
    return None if raw is None else decode(Head, raw)


def layout_key(head: Head, version_id: str) -> bytes:
    """The key of a version's layout."""
    return number_key(head.number, version_id.encode())


def _layout(view: Overlay, head: Head, version_id: str) -> Layout | None:
    raw = view.get(LAYOUTS, layout_key(head, version_id))
    return None if raw is None else decode(Layout, raw)


def live_layout(view: Overlay, version: Version) -> tuple[Head, Layout]:
    """The head and layout of a version that has content. Raises NotFound."""
    head = read_head(view, version.policy_id)
    if head is None:
        raise timeline.missing_policy(version.policy_id)
    layout = _layout(view, head, version.version_id)
    if layout is None:
        raw = view.get(VERSIONS, keycode.encode((version.policy_id, version.version_id)))
        if raw is None:
            raise timeline.missing_version(version.policy_id, version.version_id)
        timeline.present(decode(Version, raw))
        raise timeline.missing_version(version.policy_id, version.version_id)
    return head, layout


def other_layouts(view: Overlay, head: Head, version_id: str) -> list[Layout]:
    """The layouts of the policy's other versions."""
    own = layout_key(head, version_id)
    return [decode(Layout, raw) for key, raw in view.scan(LAYOUTS, *under(head.number)) if key != own]


def drop_content(view: Overlay, policy_id: str, version_id: str) -> None:
    """Delete a version's layout and all that no other version has."""
    head = read_head(view, policy_id)
    layout = None if head is None else _layout(view, head, version_id)
    if head is None or layout is None:
        return
    free(view, head, layout, other_layouts(view, head, version_id))
    view.delete(LAYOUTS, layout_key(head, version_id))


def free(view: Overlay, head: Head, layout: Layout, kept: Sequence[Layout]) -> None:
    """Delete what lies where a layout says and none of those says that are kept."""
    rows, texts = [run for other in kept for run in other.rows], [run for other in kept for run in other.texts]
    for tree, runs, others in ((NODES, layout.rows, rows), (TEXTS, layout.texts, texts)):
        for start, end in outside(runs, others):
            view.delete_range(tree, two_numbers(head.number, start), two_numbers(head.number, end))
    for part, number in enumerate(layout.parts):
        if all(other.parts[part] != number for other in kept):
            for tree in PART_TREES[part]:
                view.delete_range(tree, *under(number))
    for number in layout.postings:
        if all(number not in other.postings for other in kept):
            for tree in (POSTINGS, LENGTHS):
                view.delete_range(tree, *under(number))


def check_numbers(version: Version, following: int, tree: int) -> None:
    """Raise Unavailable where the next number, of rows or texts, would have no bytes: runs of numbers end with it."""
    if following > MAX_NUMBER:
        what = f"policy {version.policy_id!r} has given out all its {'text' if tree == TEXTS else 'row'} numbers"
        raise Unavailable(f"{what}; store it anew, under another id")


def most_runs(nodes: int) -> int:
    """In how many runs the rows of a version may lie: reading a run takes about as long as reading some rows."""
    return max(nodes // 8, _FEW_RUNS)


class Base:
    """An earlier content of a policy, which a new one shares what is equal with. None at all has no layout.

    ``equal`` says of each ordinal of the new content whether its row is that of the base. Texts are known by hash.
    """

    def __init__(self, view: Overlay, policy: int, layout: Layout | None, nodes: int) -> None:
        self.layout = layout
        self.equal = bytearray(nodes)
        self.view = view
        self._policy = policy
        self._number_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    def add_text(self, number: int, digest: bytes) -> None:
        """Note a text."""
        self._number_of.setdefault(digest, number)
        self._hash_of[number] = digest

    def text_number(self, digest: bytes, following: int) -> int | None:
        """The number of a text with this hash: the one that continues a run if it has it. None where there is no such text."""
        return following if self._hash_of.get(following) == digest else self._number_of.get(digest)

    def is_free(self, number: int) -> bool:
        """Whether no version at all has a text under this number."""
        return number not in self._hash_of and self.view.get(TEXTS, two_numbers(self._policy, number)) is None

    def shares(
        self, trees: Sequence[int], number: int, entries: Callable[[int, int], Iterator[Entry]]
    ) -> Generator[None, None, bool]:
        """Whether what lies under a content number is just this, tree by tree. Pauses now and then."""
        for tree in trees:
            both = zip_longest(self.view.entries(tree, *under(number)), entries(tree, number))
            for count, (stored, new) in enumerate(both):
                if stored != new:
                    return False
                if count % 256 == 255:
                    yield
        return True


def find_base(view: Overlay, head: Head, write: ReplaceVersion) -> Generator[None, None, Base]:
    """The version's present content or, if it has none, that of the latest version of the policy, and which rows and texts it
    has. Pauses now and then."""
    policy_id, nodes = write.version.policy_id, write.nodes
    layout = _layout(view, head, write.version.version_id)
    if layout is None:
        low, high = keycode.prefix_range((policy_id,))
        latest = timeline.latest([decode(Version, raw) for _, raw in view.scan(VERSIONS, low, high)])
        layout = None if latest is None else _layout(view, head, latest.version_id)
    base = Base(view, head.number, layout, len(nodes))
    if layout is None:
        return base
    texts, add_text, equal = numbers_of(layout.texts), base.add_text, base.equal
    for run in layout.rows:
        offset = run.first - run.number
        for key, row in view.entries(NODES, two_numbers(head.number, run.number), two_numbers(head.number, run.end)):
            ordinal = int.from_bytes(key[4:], "big") + offset
            digest = row_text_hash(row)
            if digest is not None:
                add_text(texts[ordinal], digest)
            if ordinal < len(nodes) and row_tree_hash(row) == nodes[ordinal].tree_hash:
                equal[ordinal] = row == encode_row(nodes[ordinal])
            if ordinal % 256 == 255:
                yield
    for key, row in view.entries(PAGES, *under(layout.parts.page_texts)):
        add_text(texts[layout.nodes + int.from_bytes(key[4:], "big")], decode(PageRow, row).content_hash)
    return base


class NewContent:
    """A version's new content as entries of the store's trees.

    What is equal in the base keeps its numbers: a text by its hash, a row at its ordinal, a part as a whole, postings but for
    a few rows. The others get the next ones, in order. A node without a text takes a text number too, under which nothing
    lies, so that it does not break a run. Where sharing would leave the rows in too many runs, all are written anew.
    """

    def __init__(self, write: ReplaceVersion, head: Head, content: int, base: Base) -> None:
        self.version = write.version
        self.head = head
        self.content = content
        self._nodes = write.nodes
        self._pages = write.pages
        self._segments = write.segments
        self._page_hashes = [sha256(page.content.encode()).digest() for page in write.pages]
        self._base = base
        self._new_rows: Sequence[int] = range(len(write.nodes))  # ordinals
        self._new_texts: list[int] = []  # indexes
        self._new_numbers: list[int] = []  # theirs
        self._postings: Segments | None = None  # where few are new
        self._next_text = head.next_text
        self.layout = Layout(content, len(write.nodes), len(write.pages), (), (), Parts(*repeat(content, 3)), (content,))

    def lay_out(self) -> Generator[None, None, None]:
        """Give everything its number; to be called once, before anything else. Pauses now and then."""
        hashes = [node.text_hash for node in self._nodes] + self._page_hashes
        if self._base.layout is None:
            texts = self._number_new_texts(hashes)
            rows, parts, postings = self._number_rows(()), self.layout.parts, self.layout.postings
        else:
            texts = yield from self._number_texts(hashes)
            rows = self._number_rows(self._base.layout.rows)
            parts = yield from self._find_parts(self._base.layout.parts)
            postings = yield from self._find_postings(self._base.view, self._base.layout.postings)
        check_numbers(self.version, self._next_text, TEXTS)
        check_numbers(self.version, self.head.next_row + len(self._new_rows), NODES)
        self.layout = msgspec.structs.replace(self.layout, texts=texts, rows=rows, parts=parts, postings=postings)

    def _number_texts(self, hashes: Sequence[bytes | None]) -> Generator[None, None, Runs]:
        numbers: list[int] = []
        following = -1
        for index, digest in enumerate(hashes):
            number: int | None
            if digest is None:
                old = 0 <= following < self.head.next_text  # the others are given out by this content
                free = following == self._next_text or (old and self._base.is_free(following))
                number = following if free else self._next_text
            else:
                number = self._base.text_number(digest, following)
                if number is None:
                    number = self._next_text
                    self._new_texts.append(index)
                    self._new_numbers.append(number)
            if number == self._next_text:
                self._next_text += 1
            numbers.append(number)
            following = number + 1
            if index % 256 == 255:
                yield
        return runs_of(numbers)

    def _number_new_texts(self, hashes: Sequence[bytes | None]) -> Runs:
        """Where no text is known all are new, and one run: what :meth:`_number_texts` does then, at once."""
        start, self._next_text = self._next_text, self._next_text + len(hashes)
        self._new_texts = [index for index, digest in enumerate(hashes) if digest is not None]
        self._new_numbers = [start + index for index in self._new_texts]
        return (Run(0, start, len(hashes)),) if hashes else ()

    def _number_rows(self, base: Runs) -> Runs:
        count, equal = len(self._nodes), self._base.equal
        if any(equal):
            new = [ordinal for ordinal in range(count) if not equal[ordinal]]
            numbers = numbers_of(base)[:count]
            numbers += repeat(0, count - len(numbers))
            for number, ordinal in enumerate(new, self.head.next_row):
                numbers[ordinal] = number
            runs = runs_of(numbers)
            if len(runs) <= most_runs(count):
                self._new_rows = new
                return runs
        return (Run(0, self.head.next_row, count),) if count else ()

    def _find_parts(self, base: Parts) -> Generator[None, None, Parts]:
        """The base's numbers of the parts that are the same, this content's own of the others."""
        numbers: list[int] = []
        for trees, number in zip(PART_TREES, base, strict=True):
            same = yield from self._base.shares(trees, number, self._entries)
            numbers.append(number if same else self.content)
        return Parts(*numbers)

    def _find_postings(self, view: Overlay, base: Layers) -> Generator[None, None, Layers]:
        """The base's layers if they are the same, this content's in front of them for few changes, else this content's own.
        Where that would be too many, what all but the last one changed is written again."""
        new = yield from changed(view.entries, base, self._segments)
        if new is not None and not new.rows and not new.lengths:
            return base
        if len(base) == MOST_LAYERS:
            base = base[-1:]
            new = yield from changed(view.entries, base, self._segments)
        self._postings = new
        return (self.content, *base) if new is not None else (self.content,)

    def families(self) -> Iterator[tuple[int, Iterator[Entry]]]:
        """The trees that get new entries, each with them in key order."""
        nodes, pages, policy, first = self._nodes, self._pages, self.head.number, self.head.next_row
        rows = map(encode_row, map(nodes.__getitem__, self._new_rows))
        yield NODES, zip(map(two_numbers, repeat(policy), range(first, first + len(self._new_rows))), rows, strict=True)
        count = len(nodes)
        new = (encode(nodes[i].text if i < count else pages[i - count].content) for i in self._new_texts)
        yield TEXTS, zip(map(two_numbers, repeat(policy), self._new_numbers), new, strict=True)
        for trees, number in zip(PART_TREES, self.layout.parts, strict=True):
            if number == self.content:
                for tree in trees:
                    yield tree, self._entries(tree, number)
        if self.content in self.layout.postings:
            own, fresh = number_key(self.content), self._postings or all_of(self._segments)
            yield POSTINGS, ((own + key, row) for key, row in sorted(fresh.rows.items()))
            yield LENGTHS, ((own + key, raw) for key, raw in sorted(fresh.lengths.items()))

    @cached_property
    def _by_id(self) -> list[tuple[bytes, int]]:
        return sorted([(node.node_id.encode(), ordinal) for ordinal, node in enumerate(self._nodes)])

    def _entries(self, tree: int, content: int) -> Iterator[Entry]:
        """The entries of the version in one of the trees of its parts, under a content number, in key order."""
        if tree == NODE_IDS:
            number = number_key(content)
            return ((number + node_id, one_number(ordinal)) for node_id, ordinal in self._by_id)
        if tree == PAGES:
            both = zip(self._pages, self._page_hashes, strict=True)
            rows = (encode(PageRow(page.page, digest, page.extra)) for page, digest in both)
            return ((two_numbers(content, i), row) for i, row in enumerate(rows))
        if tree == PAGE_NUMBERS:
            numbers = sorted((page.page, i) for i, page in enumerate(self._pages))
            return ((two_numbers(content, page), one_number(i)) for page, i in numbers)
        assert tree == INTERVALS
        ranges = intervals.rows(self._nodes)
        return ((interval_key(content, depth, index), row) for depth, index, row in ranges)

    def link(self, view: Overlay) -> None:
        """Take the place of the version's old content. The entries of :meth:`families` are put or linked afterwards. The
        policy's head is the one that this was made for, if there was one."""
        version, head = self.version, self.head
        old = _layout(view, head, version.version_id) if head.changes else None
        if old is not None:
            free(view, head, old, [*other_layouts(view, head, version.version_id), self.layout])
        next_row = head.next_row + len(self._new_rows)
        head = msgspec.structs.replace(head, next_text=self._next_text, next_row=next_row, changes=head.changes + 1)
        view.put(HEADS, version.policy_id.encode(), encode(head))
        view.put(LAYOUTS, layout_key(head, version.version_id), encode(self.layout))
