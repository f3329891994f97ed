"""Saving what is left of a damaged store: all versions that are whole go to a new store, of the others what can be read is
written to files beside it.

A version is copied only if it is proven: its nodes and page texts, as they were read, must give the hashes that its facts
have. So it does not matter where they were found. It is copied with its facts as they were, history and tombstones included;
what is derived (indexes, page ranges, postings) is derived anew. The damaged store is not changed by a byte.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.file import OsFileSystem, UnchangedFileSystem
from treestore.backends.btree.engine.recovery import LOCK, TreeChange
from treestore.backends.btree.engine.salvage import Remains, find_remains
from treestore.backends.btree.keyspace import (
    BY_INGESTION,
    HEADS,
    LAYOUTS,
    MAX_NUMBER,
    NODES,
    PAGES,
    TEXTS,
    TREES,
    VERSIONS,
    Head,
    Layout,
    PageRow,
    Parts,
    decode,
    decode_outline,
    row_prefix,
    two_numbers,
    under,
)
from treestore.backends.btree.reassembly import Rows
from treestore.backends.btree.remains import Entries
from treestore.backends.btree.runs import Runs, between, runs_of
from treestore.config import Settings
from treestore.errors import Corrupted, InvalidInput, NoStore
from treestore.operations import Check, Compact, DropVersion, ReplaceVersion, Segment, WriteGroup
from treestore.records import LostVersion, Node, Outline, PageText, SalvageReport, Version
from treestore.search import analyzer
from treestore.search.postings import pack
from treestore.trees import soundness
from treestore.trees.rules import MAX_NODES

_CACHE_BYTES = 64 * 1024 * 1024
_MOST_TRIALS = 64  # combinations of strays that are tried for one version
_MOST_PLACES = 10  # places of damage that are named for one version

Name = tuple[str, str]
"""A policy's id and a version's."""


class Content(msgspec.Struct):
    """What could be read of a version's content; ``where`` says why the rest could not. Of one that is not ``whole``, what
    may be of an earlier time is apart, as ``unproven``."""

    nodes: list[Node]
    pages: list[PageText]
    unproven: list[Node] = []
    expected_nodes: int | None = None
    expected_pages: int | None = None
    texts_lost: list[str] = []
    where: dict[str, None] = {}
    whole: bool = False


# --- reading -------------------------------------------------------------------------------------------------------------


class Salvage:
    """Finds the versions of a damaged store and proves those that are whole."""

    def __init__(self, remains: Remains) -> None:
        self.entries = Entries(remains)
        self._remains = remains
        self._policies: dict[str, list[int]] = {}
        for key in self.entries.all_keys(HEADS):
            heads: list[Head] = [decode(Head, raw) for raw in self.entries.values(HEADS, key)]
            self._policies[key.decode()] = sorted({head.number for head in heads})
        self._layouts: dict[str, dict[tuple[int, Layout], bool]] = {}  # by version id; whether it is no stray
        for key in self.entries.all_keys(LAYOUTS):
            number, version_id = int.from_bytes(key[:4], "big"), key[4:].decode()
            for raw in self.entries.values(LAYOUTS, key):
                sure = not self.entries.is_stray(LAYOUTS, key)
                self._layouts.setdefault(version_id, {})[number, decode(Layout, raw)] = sure
        self._rows: Rows | None = None
        self._pages: dict[int, list[int]] = {}  # contents that have page texts, by how many

    def names(self) -> list[Name]:
        """All versions that there are signs of, by policy and, as far as that is known, in the order of ingestion."""
        order: dict[Name, object] = {}
        for key in self.entries.all_keys(VERSIONS):
            policy_id, version_id = keycode.decode(key)
            row = self.facts((policy_id, version_id))
            order[policy_id, version_id] = None if row is None else row.ingested_at
        for key, _ in self._remains.state.scan(BY_INGESTION, b"", None):
            policy_id, ingested_at, version_id = keycode.decode(key)
            order.setdefault((policy_id, version_id), ingested_at)
        owners = {number: policy_id for policy_id, numbers in self._policies.items() for number in numbers}
        for version_id, layouts in self._layouts.items():
            for number, _ in layouts:
                if number in owners:
                    order.setdefault((owners[number], version_id), None)
        return sorted(order, key=lambda name: (name[0], str(order[name]), name[1]))

    def facts(self, name: Name) -> Version | None:
        """The version's facts, the newest that are found."""
        rows: list[Version] = [decode(Version, raw) for raw in self.entries.values(VERSIONS, keycode.encode(name))]
        return max(rows, key=lambda row: row.revision, default=None)

    def outdated(self, name: Name) -> bool:
        """Whether the facts may be of an earlier time."""
        return self.entries.is_stray(VERSIONS, keycode.encode(name))

    def content(self, name: Name, facts: Version | None) -> Content:
        """The content of a version that was not deleted, whole and proven or, if that can't be had, most of it."""
        best = Content([], [])
        if facts is not None:
            best.expected_nodes, best.expected_pages = facts.node_count, facts.page_count
        for number, layout, sure in self._placed(name, facts):
            found = self._read(name, facts, number, layout)
            if found.whole:
                return found
            if number not in self._policies.get(name[0], ()):
                continue  # it may be another policy's
            self._set_apart(found, number, layout, sure)
            if len(found.nodes) + len(found.unproven) >= len(best.nodes) + len(best.unproven):
                best = found
        if facts is None:
            self._lost(best, VERSIONS, keycode.encode(name))
        elif not best.where:
            self._lost(best, LAYOUTS, b"")
        return best

    def _set_apart(self, found: Content, number: int, layout: Layout, sure: bool) -> None:
        """Of what is not proven as a whole only rows that stand where they belong are certainly the newest."""
        nodes, found.nodes = found.nodes, []
        for node in nodes:
            key = _key(number, layout.rows, node.ordinal)
            stray = key is None or self.entries.is_stray(NODES, key)
            (found.nodes if sure and not stray else found.unproven).append(node)
        if not sure:
            found.pages = []

    def _placed(self, name: Name, facts: Version | None) -> Iterator[tuple[int, Layout, bool]]:
        """Where the content may lie, and whether it certainly does: what the layouts say; if those are lost, what the hashes
        say; if the policy's number is lost, what belongs to any policy: the proof will tell."""
        numbers = self._policies.get(name[0])
        for (number, layout), sure in self._layouts.get(name[1], {}).items():
            fits = facts is None or (layout.nodes, layout.pages) == (facts.node_count, facts.page_count)
            if fits and (numbers is None or number in numbers):
                yield number, layout, sure
        if facts is not None and self.entries.lacks(LAYOUTS):
            yield from self._found_out(facts, numbers)

    def _found_out(self, facts: Version, numbers: Sequence[int] | None) -> Iterator[tuple[int, Layout, bool]]:
        """Layouts that fit a version, made of what is found: rows that its hashes prove, and as many pages as it has."""
        if self._rows is None:
            self._rows = Rows(self.entries)
            counted = Counter(int.from_bytes(key[:4], "big") for key in set(self.entries.all_keys(PAGES)))
            self._pages = {count: [n for n, c in sorted(counted.items()) if c == count] for count in {*counted.values()}}
        for policy in self._rows.policies() if numbers is None else numbers:
            rows = self._rows.find(policy, facts)
            for content in self._pages.get(facts.page_count, []) if facts.page_count else [0]:
                if rows is not None:
                    parts = Parts(0, content, 0)
                    yield policy, Layout(0, facts.node_count, facts.page_count, (), runs_of(rows), parts, ()), False

    def _read(self, name: Name, facts: Version | None, number: int, layout: Layout) -> Content:
        """What can be read of a content at a place, with the proof if all can be."""
        found = Content([], [], expected_nodes=layout.nodes, expected_pages=layout.pages)
        self._read_pages(found, number, layout)
        choices: list[list[Outline]] = []
        prefix = row_prefix(*name)
        for ordinal in range(layout.nodes) if layout.nodes <= MAX_NODES else ():
            key = _key(number, layout.rows, ordinal)
            stored = self.entries.values(NODES, key) if key is not None else ()
            rows = [row for row in (decode_outline(prefix, raw) for raw in stored) if row.ordinal == ordinal]
            if rows:
                choices.append(sorted(rows, key=lambda row: str(row.updated_at or ""), reverse=True))
            if key is None or not rows or self.entries.is_stray(NODES, key):
                self._lost(found, NODES, key or b"")  # what a stray says needs the proof of the whole
        complete = len(choices) == layout.nodes and len(found.pages) == layout.pages and facts is not None
        trials = itertools.islice(itertools.product(*choices), _MOST_TRIALS if complete else 1)
        first: Content | None = None
        for chosen in trials:
            tried = msgspec.structs.replace(found, texts_lost=[], unproven=[], where=found.where.copy())
            self._read_texts(tried, number, layout, chosen)
            first = first or tried
            if complete and facts is not None and not tried.texts_lost:
                problems = soundness.problems(facts, tried.nodes, tried.pages)
                if not problems:
                    tried.whole = True
                    return tried
                tried.where[problems[0]] = None
        return first or found

    def _lost(self, found: Content, tree: int, key: bytes) -> None:
        if len(found.where) < _MOST_PLACES:
            found.where[self.entries.gap(tree, key) or f"an entry of the tree of {TREES[tree]} is not there"] = None

    def _read_texts(self, found: Content, number: int, layout: Layout, rows: Sequence[Outline]) -> None:
        """The nodes of these rows; one whose text is lost is there without it."""
        found.nodes = []
        for row in rows:
            text = None
            if row.text_hash is not None:
                key = _key(number, layout.texts, row.ordinal)
                text = self.entries.text(key, row.text_hash)
                if text is None:
                    found.texts_lost.append(row.node_id)
                    self._lost(found, TEXTS, key or b"")
            fields = {name: getattr(row, name) for name in row.__struct_fields__}
            found.nodes.append(Node(**fields, text=text))

    def _page_keys(self, layout: Layout) -> Iterable[bytes]:
        """The keys of a version's pages: of all that there should be or, where no document has so many, that there are."""
        content = layout.parts.page_texts
        if layout.pages <= MAX_NODES:
            return (two_numbers(content, position) for position in range(layout.pages))
        return self.entries.keys(PAGES, *under(content))

    def _read_pages(self, found: Content, number: int, layout: Layout) -> None:
        for key in self._page_keys(layout):
            text_key = _key(number, layout.texts, layout.nodes + int.from_bytes(key[4:], "big"))
            rows: list[PageRow] = [decode(PageRow, raw) for raw in self.entries.values(PAGES, key)]
            texts = [(row, self.entries.text(text_key, row.content_hash)) for row in rows]
            pages = [PageText(page=row.page, content=text, extra=row.extra) for row, text in texts if text is not None]
            found.pages += pages[:1]
            if not rows:
                self._lost(found, PAGES, key)
            elif not pages:
                self._lost(found, TEXTS, text_key or b"")

    def unapplied(self) -> list[Name]:
        """The versions that groups behind damage of the log have changed, or made."""
        names = {
            keycode.decode(key)
            for changes in self._remains.later
            for change in changes
            if change.tree == VERSIONS
            for key in _keys_of(change)
        }
        return sorted((str(policy_id), str(version_id)) for policy_id, version_id in names)

    def all_named(self) -> bool:
        """Whether no version can be missing without a sign of it."""
        if not self._remains.based or (self.entries.lacks(VERSIONS) and self.entries.lacks(BY_INGESTION)):
            return False
        return self._remains.certain


def _key(policy: int, runs: Runs, index: int) -> bytes | None:
    """The key of a row or a text; None where the runs do not say it."""
    run = next(between(runs, index, index), None)
    return two_numbers(policy, run.number) if run is not None and 0 <= run.number <= MAX_NUMBER else None


def _keys_of(change: TreeChange) -> list[bytes]:
    return [key for key, value in zip(change.keys, change.values, strict=True) if value is not None]


# --- writing -------------------------------------------------------------------------------------------------------------


def salvage(source: str, folder: str, parts: str) -> SalvageReport:
    """Copy all whole versions of the store in the folder ``source``, which is not changed and must not be open, to a new (or
    empty) folder; write what is left of the others to files in the folder ``parts``, which is made if there are any.

    Raises NoStore, NotAStore, MigrationError or Locked for what is no store or one that is in use, InvalidInput or NotAStore
    where one of the new folders holds something or is a file, DiskFull, ReadOnly, Unavailable; then nothing was made.
    """
    fs = UnchangedFileSystem()
    if not fs.exists(source):
        raise NoStore(f"there is no store at {source}")
    fs.list(source)  # or it is a file
    for path, field in ((folder, "folder"), (parts, "parts")):
        if OsFileSystem().exists(path) and OsFileSystem().list(path):
            raise InvalidInput(f"{path} is not empty; name a new folder", field=field)
    lock = fs.lock(os.path.join(source, LOCK), "")
    try:
        remains = find_remains(fs, source, _CACHE_BYTES)
        try:
            return _saved(Salvage(remains), remains, folder, parts)
        finally:
            remains.close()
    finally:
        lock.close()


def _saved(salvage: Salvage, remains: Remains, folder: str, parts: str) -> SalvageReport:
    """Make the new store under another name, beside its own, which it gets when it is whole."""
    place = os.path.abspath(folder)
    stage = os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.{secrets.token_hex(4)}.unfinished")
    try:
        backend = BtreeBackend.open(stage, Settings(cache_size_mb=_CACHE_BYTES >> 20))
        try:
            report = _copied(salvage, remains, backend, parts)
            backend.read_one_now(Compact())  # all of it is in pages then, and nothing in the log only
            checked = backend.read_one_now(Check())
            if not checked.ok:
                raise Corrupted(f"the copy is not sound, which is a fault in treestore: {checked.problems[0]}")
        finally:
            backend.close_now()
        fs = OsFileSystem()
        fs.rename(stage, place)
        fs.sync_folder(os.path.dirname(place))
    except BaseException:
        for made in (stage, parts):
            shutil.rmtree(made, ignore_errors=True)
        raise
    return report


def _copied(salvage: Salvage, remains: Remains, backend: BtreeBackend, parts: str) -> SalvageReport:
    versions = nodes = 0
    lost: list[LostVersion] = []
    outdated = [] if not remains.based else salvage.unapplied()
    for name in salvage.names():
        facts = salvage.facts(name)
        if facts is not None and facts.deleted_at is not None:
            _bury(backend, facts)
        else:
            content = salvage.content(name, facts)
            if facts is None or not content.whole:
                lost.append(_noted(name, facts, content, parts, len(lost) + 1))
                continue
            _store(backend, facts, content)
            nodes += len(content.nodes)
        versions += 1
        if remains.based and salvage.outdated(name) and name not in outdated:
            outdated.append(name)
    if not salvage.all_named() and remains.based and remains.certain:
        remains.damage.append("versions of which all signs are lost would not be listed here")
    return SalvageReport(
        complete=not lost and not outdated and salvage.all_named(),
        versions=versions,
        nodes=nodes,
        lost=lost,
        outdated=sorted(outdated),
        damage=remains.damage,
    )


def _store(backend: BtreeBackend, facts: Version, content: Content) -> None:
    segments: Sequence[Segment] = ()
    if facts.analyzer:
        packed = finished(pack(content.nodes))
        segments = packed.segments
        facts = msgspec.structs.replace(facts, analyzer=analyzer.VERSION, term_count=packed.term_count)
    backend.write_now(WriteGroup((ReplaceVersion(facts, content.nodes, content.pages, segments),)))


def _bury(backend: BtreeBackend, facts: Version) -> None:
    """A tombstone: what was deleted must have been there."""
    alive = msgspec.structs.replace(facts, deleted_at=None, analyzer="", term_count=0)
    backend.write_now(WriteGroup((ReplaceVersion(alive, ()), DropVersion(facts))))


def _write(path: str, content: bytes) -> None:
    """A new file, in a folder that is made if need be."""
    fs, folder = OsFileSystem(), os.path.dirname(path)
    if not fs.exists(folder):
        fs.make_folder(folder)
    file = fs.open(path, create=True)
    try:
        file.write(0, content)
        file.sync()
    finally:
        file.close()
    fs.sync_folder(folder)


_GIVEN_KEYS = (
    "node_id",
    "parent_id",
    "title",
    "page_start",
    "page_end",
    "page_index",
    "line_num",
    "summary",
    "prefix_summary",
    "section_path",
    "validation_status",
    "metadata",
    "extra",
    "text",
)


def _given(node: Node) -> dict[str, object]:
    """A node as it would be stored again."""
    return {key: getattr(node, key) for key in _GIVEN_KEYS if getattr(node, key) is not None}


def _plain(value: object) -> object:
    """Records as dicts, bytes in hex."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.hex() if isinstance(value, bytes) else value


def _noted(name: Name, facts: Version | None, content: Content, parts: str, number: int) -> LostVersion:
    """An incomplete version, with what could be read of it in a file: nodes as ``store_document`` takes them, apart from those
    that may be of an earlier time."""
    file = None
    if content.nodes or content.unproven or content.pages or facts is not None:
        file = os.path.join(parts, f"{number:04}.json")
        whole = {
            "policy_id": name[0],
            "version_id": name[1],
            "version": _plain(facts),
            "nodes": list(map(_given, content.nodes)),
            "unproven_nodes": list(map(_given, content.unproven)),
            "pages": [{"page": page.page, "content": page.content, **(page.extra or {})} for page in content.pages],
            "texts_lost": content.texts_lost,
        }
        _write(file, msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
    return LostVersion(
        policy_id=name[0],
        version_id=name[1],
        nodes=content.expected_nodes,
        nodes_read=len(content.nodes),
        texts_lost=len(content.texts_lost),
        pages=content.expected_pages,
        pages_read=len(content.pages),
        facts=facts is not None,
        where=tuple(content.where),
        file=file,
    )
