"""What a version's content is in the store's trees: laid out, replaced, amended, deleted.

A text belongs to the policy. It is written once for all versions that have it in succession, and deleted with the last
version that maps its number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from itertools import repeat

import msgspec

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.keyspace import (
    HEADS,
    INTERVALS,
    LAYOUTS,
    LENGTHS,
    MAX_NUMBER,
    NO_TEXT,
    NODE_IDS,
    NODES,
    PAGE_NUMBERS,
    PAGES,
    POSTINGS,
    TEXTS,
    VERSIONS,
    Head,
    Layout,
    PageRow,
    TextRun,
    decode,
    decode_outline,
    encode,
    encode_row,
    interval_key,
    number_key,
    one_number,
    posting_key,
    row_prefix,
    row_text_hash,
    two_numbers,
    under,
)
from treestore.backends.btree.overlay import Entry, Overlay
from treestore.errors import Corrupted, Unavailable
from treestore.operations import AmendNodes, ReplaceVersion, TermChange, check_amended
from treestore.records import Version
from treestore.search import postings
from treestore.search.postings import SEGMENT_NODES
from treestore.trees import intervals, timeline


def read_head(view: Overlay, policy_id: str) -> Head | None:
    """The policy's head; None if there never was such a policy."""
    raw = view.get(HEADS, policy_id.encode())
    return None if raw is None else decode(Head, raw)


def _layout_key(head: Head, version_id: str) -> bytes:
    return number_key(head.number, version_id.encode())


def _layout(view: Overlay, head: Head, version_id: str) -> Layout | None:
    raw = view.get(LAYOUTS, _layout_key(head, version_id))
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


def _other_layouts(view: Overlay, head: Head, version_id: str) -> list[Layout]:
    own = _layout_key(head, version_id)
    return [decode(Layout, raw) for key, raw in view.scan(LAYOUTS, *under(head.number)) if key != own]


def drop_content(view: Overlay, policy_id: str, version_id: str) -> None:
    """Delete a version's nodes, page texts and layout, and the texts that no other version has."""
    head = read_head(view, policy_id)
    layout = None if head is None else _layout(view, head, version_id)
    if head is None or layout is None:
        return
    _drop_rows(view, layout)
    free_texts(view, head, layout.texts, [run for other in _other_layouts(view, head, version_id) for run in other.texts])
    view.delete(LAYOUTS, _layout_key(head, version_id))


def _drop_rows(view: Overlay, layout: Layout) -> None:
    for tree in (NODES, NODE_IDS, PAGES, PAGE_NUMBERS, POSTINGS, LENGTHS, INTERVALS):
        view.delete_range(tree, *under(layout.content))


def free_texts(view: Overlay, head: Head, runs: Sequence[TextRun], kept: Sequence[TextRun]) -> None:
    """Delete the texts of runs, but for those whose numbers lie in the runs that are kept."""
    spans = sorted((run.number, run.number + run.length) for run in kept)
    for run in runs:
        start, end = run.number, run.number + run.length
        for low, high in spans:
            if high <= start or low >= end:
                continue
            if low > start:
                view.delete_range(TEXTS, two_numbers(head.number, start), two_numbers(head.number, low))
            start = max(start, high)
        if start < end:
            view.delete_range(TEXTS, two_numbers(head.number, start), two_numbers(head.number, end))


def _check_text_numbers(version: Version, following: int) -> None:
    """Raise Unavailable where the next text number would have no bytes: runs of numbers end with it."""
    if following > MAX_NUMBER:
        raise Unavailable(f"policy {version.policy_id!r} has given out all its text numbers; store it anew, under another id")


class KnownTexts:
    """The texts of an earlier version, by hash and by number."""

    def __init__(self, view: Overlay, policy: int) -> None:
        self._view = view
        self._policy = policy
        self.number_of: dict[bytes, int] = {}
        self.hash_of: dict[int, bytes] = {}

    def add(self, number: int, digest: bytes) -> None:
        """Note a text."""
        self.number_of.setdefault(digest, number)
        self.hash_of[number] = digest

    def find(self, digest: bytes, following: int) -> int:
        """The number of a text with this hash, which is known: the one that continues a run if it has it."""
        return following if self.hash_of.get(following) == digest else self.number_of[digest]

    def is_free(self, number: int) -> bool:
        """Whether no version at all has a text under this number."""
        return number not in self.hash_of and self._view.get(TEXTS, two_numbers(self._policy, number)) is None


def known_texts(
    view: Overlay, head: Head, policy_id: str, version_id: str
) -> Generator[None, None, KnownTexts]:
    """The texts of the version's present content or, if it has none, of the latest version of the policy. Pauses now and
    then."""
    known = KnownTexts(view, head.number)
    layout = _layout(view, head, version_id)
    if layout is None:
        low, high = keycode.prefix_range((policy_id,))
        versions = [decode(Version, raw) for _, raw in view.scan(VERSIONS, low, high)]
        latest = timeline.latest(versions)
        layout = None if latest is None else _layout(view, head, latest.version_id)
    if layout is None:
        return known
    for key, row in view.entries(NODES, *under(layout.content)):
        digest = row_text_hash(row)
        if digest is not None:
            known.add(layout.text_number(int.from_bytes(key[4:], "big")), digest)
        if key[-1] == 0:  # every 256th
            yield
    for key, row in view.entries(PAGES, *under(layout.content)):
        index = layout.nodes + int.from_bytes(key[4:], "big")
        known.add(layout.text_number(index), decode(PageRow, row).content_hash)
    return known


class NewContent:
    """A version's new nodes and page texts as entries of the store's trees.

    Texts that the version before has, by hash, keep their numbers; the others get the policy's next ones, in order. A node
    without a text takes a number too, under which nothing lies, so that it does not break a run.
    """

    def __init__(self, write: ReplaceVersion, head: Head, content: int, known: KnownTexts) -> None:
        self.version = write.version
        self.head = head
        self.content = content
        self._nodes = write.nodes
        self._pages = write.pages
        self._segments = write.segments
        self._page_hashes = [sha256(page.content.encode()).digest() for page in write.pages]
        self._new_texts: list[int] = []  # indexes
        self._new_numbers: list[int] = []  # theirs
        self._next_text = head.next_text
        self.layout = Layout(content, len(write.nodes), len(write.pages), ())
        self._known = known

    def number_texts(self) -> Iterator[None]:
        """Give the texts their numbers; to be called once, before anything else. Pauses now and then."""
        known, numbers = self._known, self._known.number_of
        if not numbers:
            self._number_new_texts()
            return
        runs: list[TextRun] = []
        first = start = length = 0
        hashes = [node.text_hash for node in self._nodes] + self._page_hashes
        for index, digest in enumerate(hashes):
            following = start + length
            if digest is None:
                old = following < self.head.next_text  # the others are given out by this content
                free = length and (following == self._next_text or (old and known.is_free(following)))
                number = following if free else self._next_text
            elif digest in numbers:
                number = known.find(digest, following)
            else:
                number = self._next_text
                self._new_texts.append(index)
                self._new_numbers.append(number)
            if number == self._next_text:
                self._next_text += 1
            if index % 256 == 255:
                yield
            if length and number == following:
                length += 1
                continue
            if length:
                runs.append(TextRun(first, start, length))
            first, start, length = index, number, 1
        if length:
            runs.append(TextRun(first, start, length))
        _check_text_numbers(self.version, self._next_text)
        self.layout = msgspec.structs.replace(self.layout, texts=tuple(runs))

    def _number_new_texts(self) -> None:
        """Where no text is known all are new, and one run: what :meth:`number_texts` does then, at once."""
        hashes = [node.text_hash for node in self._nodes] + self._page_hashes
        start, self._next_text = self._next_text, self._next_text + len(hashes)
        self._new_texts = [index for index, digest in enumerate(hashes) if digest is not None]
        self._new_numbers = [start + index for index in self._new_texts]
        _check_text_numbers(self.version, self._next_text)
        self.layout = msgspec.structs.replace(self.layout, texts=(TextRun(0, start, len(hashes)),) if hashes else ())

    def families(self) -> Iterator[tuple[int, Iterator[Entry]]]:
        """The trees that get the content, each with its entries in key order."""
        nodes, pages, content = self._nodes, self._pages, self.content
        yield NODES, zip(map(two_numbers, repeat(content), range(len(nodes))), map(encode_row, nodes), strict=False)
        under_content = number_key(content)
        ids = [under_content + node.node_id.encode() for node in nodes]
        yield NODE_IDS, ((ids[i], one_number(i)) for i in sorted(range(len(ids)), key=ids.__getitem__))
        count = len(nodes)
        new = (encode(nodes[i].text if i < count else pages[i - count].content) for i in self._new_texts)
        yield TEXTS, zip(map(two_numbers, repeat(self.head.number), self._new_numbers), new, strict=True)
        rows = (encode(PageRow(page.page, digest, page.extra)) for page, digest in zip(pages, self._page_hashes, strict=True))
        yield PAGES, ((two_numbers(content, i), row) for i, row in enumerate(rows))
        numbers = sorted((page.page, i) for i, page in enumerate(pages))
        yield PAGE_NUMBERS, ((two_numbers(content, page), one_number(i)) for page, i in numbers)
        segments = list(enumerate(self._segments))
        yield POSTINGS, ((posting_key(content, at, term), row) for at, segment in segments for term, row in segment.rows)
        yield LENGTHS, ((two_numbers(content, at), segment.lengths) for at, segment in segments)
        ranges = intervals.rows(nodes)
        yield INTERVALS, ((interval_key(content, depth, index), row) for depth, index, row in ranges)

    def link(self, view: Overlay) -> None:
        """Take the place of the version's old content. The entries of :meth:`families` are put or linked afterwards. The
        policy's head is the one that this was made for, if there was one."""
        version, head = self.version, self.head
        old = _layout(view, head, version.version_id) if head.changes else None
        if old is not None:
            _drop_rows(view, old)
            kept = [run for other in _other_layouts(view, self.head, version.version_id) for run in other.texts]
            free_texts(view, self.head, old.texts, [*kept, *self.layout.texts])
        head = msgspec.structs.replace(head, next_text=self._next_text, changes=head.changes + 1)
        view.put(HEADS, version.policy_id.encode(), encode(head))
        view.put(LAYOUTS, _layout_key(head, version.version_id), encode(self.layout))


def amend(view: Overlay, write: AmendNodes) -> None:
    """Replace nodes of a version, found by their ordinals. Raises NotFound, InvalidInput."""
    version = write.version
    head, layout = live_layout(view, version)
    prefix = row_prefix(version.policy_id, version.version_id)
    for node in write.nodes:
        key = two_numbers(layout.content, node.ordinal) if 0 <= node.ordinal < layout.nodes else b""
        old = view.get(NODES, key) or b""
        check_amended(node, decode_outline(prefix, old) if old else None)
        view.put(NODES, key, encode_row(node))
        if node.text_hash != row_text_hash(old):
            head, layout = _amend_text(view, head, layout, version, node.ordinal, encode(node.text))
    for change in write.terms:
        _amend_postings(view, layout, change)
    view.put(LAYOUTS, _layout_key(head, version.version_id), encode(layout))
    view.put(HEADS, version.policy_id.encode(), encode(head))


def _amend_postings(view: Overlay, layout: Layout, change: TermChange) -> None:
    """Change the rows of postings that a change of one node's terms is about."""
    segment, content = change.ordinal // SEGMENT_NODES, layout.content
    low = posting_key(content, segment, "")

    def row_of(term: str) -> tuple[str, bytes]:
        found = view.floor(POSTINGS, low, posting_key(content, segment, term))
        if found is None:
            raise Corrupted(f"segment {segment} of content {content} has no postings")
        return found[0][len(low) :].decode(), found[1]

    for name, row in postings.amended(row_of, change).items():
        key = posting_key(content, segment, name)
        if row is None:
            view.delete(POSTINGS, key)
        else:
            view.put(POSTINGS, key, row)
    key = two_numbers(content, segment)
    lengths = view.get(LENGTHS, key)
    if lengths is None:
        raise Corrupted(f"segment {segment} of content {content} has no lengths of nodes")
    size = postings.segment_size(layout.nodes, segment)
    view.put(LENGTHS, key, postings.amended_lengths(lengths, size, change))


def _amend_text(
    view: Overlay, head: Head, layout: Layout, version: Version, index: int, text: bytes
) -> tuple[Head, Layout]:
    """Change a text: in its place, if no other node and no other version has it, else under a new number."""
    number = layout.text_number(index)
    others = [run for other in _other_layouts(view, head, version.version_id) for run in other.texts]
    own = sum(run.number <= number < run.number + run.length for run in layout.texts)
    if own > 1 or any(run.number <= number < run.number + run.length for run in others):
        number = head.next_text
        _check_text_numbers(version, number + 1)
        head = msgspec.structs.replace(head, next_text=number + 1)
        layout = layout.with_text(index, number)
    if text == NO_TEXT:
        view.delete(TEXTS, two_numbers(head.number, number))
    else:
        view.put(TEXTS, two_numbers(head.number, number), text)
    return head, layout
