"""A reader of the golden stores written from FORMAT.md alone, without any of the engine's code."""

from __future__ import annotations

import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "btree-2"
LINKED = GOLDEN.with_name("btree-2-linked")
PAGE = 8192
Entries = dict[bytes, bytes]


class Stranger:
    """Reads the files of a store, by name, and applies its log."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.data = files["data"]
        self.seen: set[str] = set()
        metas = [self.data[at : at + 4096] for at in (0, 4096)]
        valid = [raw for raw in metas if zlib.crc32(raw[:4092]) == int.from_bytes(raw[4092:], "little")]
        meta = max(valid, key=lambda raw: int.from_bytes(raw[40:48], "little"))
        assert meta[:16] == b"treestore btree\0"
        assert struct.unpack_from("<II", meta, 16) == (2, PAGE)
        self.store_id = meta[24:40]
        _, self.lsn, _, self.page_count, freelist, newest_log = struct.unpack_from("<6Q", meta, 40)
        assert not newest_log or f"wal/{newest_log:020}.log" in files
        self.used: set[int] = {0}
        self.unused: set[int] = set()
        self.trees: dict[int, Entries] = {}
        for at in range(90, 90 + 18 * int.from_bytes(meta[88:90], "little"), 18):
            tree, level, entries, reference = struct.unpack_from("<BBQQ", meta, at)
            self.trees[tree] = self.node(reference, level)
            assert len(self.trees[tree]) == entries
        while freelist:
            freelist = self.free(freelist)
        assert self.used == set(range(self.page_count))
        self.unused |= set(range(self.page_count, len(self.data) // PAGE))
        self.replayed = 0
        for name in sorted(name for name in files if name.endswith(".log")):
            before = self.replayed
            self.replay(files[name], int(name[4:24]))
            if 0 < before < self.replayed:
                self.seen.add("several log files")

    def take(self, page: int, count: int = 1) -> None:
        pages = set(range(page, page + count))
        assert not pages & self.used
        self.used |= pages

    def page(self, reference: int, kinds: set[int], level: int) -> tuple[int, bytes]:
        page, checksum = reference >> 32, reference & 0xFFFFFFFF
        self.take(page)
        raw = self.data[page * PAGE : (page + 1) * PAGE]
        found, kind, at_level, count, used = struct.unpack_from("<IBBHI", raw)
        assert kind in kinds
        self.seen |= {{1: "plain leaf", 5: "pointing leaf", 2: "branch"}.get(kind, "free list")}
        assert at_level == level
        assert checksum == found == zlib.crc32(raw[4 : 12 + used], page)
        return count, raw[12 : 12 + used]

    def free(self, reference: int) -> int:
        count, body = self.page(reference, {4}, 0)
        for at in range(count):
            first, length = struct.unpack_from("<II", body, 8 + 8 * at)
            self.take(first, length)
            self.unused |= set(range(first, first + length))
        return int.from_bytes(body[:8], "little")

    def node(self, reference: int, level: int) -> Entries:
        if level == 0:
            return self.leaf(reference)
        count, body = self.page(reference, {2}, level)
        lengths = struct.unpack_from(f"<{count - 1}H", body, 8 * count)
        at, separators = 8 * count + 2 * (count - 1), []
        for length in lengths:
            separators.append(body[at : at + length])
            at += length
        assert at == len(body)
        found: Entries = {}
        for i, child in enumerate(struct.unpack_from(f"<{count}Q", body)):
            below = self.node(child, level - 1)
            assert i == 0 or separators[i - 1] <= min(below)
            assert i == count - 1 or max(below) < separators[i]
            found |= below
        return found

    def leaf(self, reference: int) -> Entries:
        count, body = self.page(reference, {1, 5}, 0)
        lengths = struct.unpack_from(f"<{2 * count}H", body)
        at, cells = 4 * count, []
        for length in lengths:
            size = 16 if length == 65535 else length
            cells.append(body[at : at + size])
            at += size
        assert at == len(body)
        keys, values = cells[:count], cells[count:]
        assert keys == sorted(set(keys))
        pairs = zip(values, lengths[count:], strict=True)
        return dict(zip(keys, [self.overflow(cell) if length == 65535 else cell for cell, length in pairs], strict=True))

    def overflow(self, pointer: bytes) -> bytes:
        page, checksum, length = struct.unpack("<IIQ", pointer)
        self.seen.add("overflow")
        self.take(page, -(-(16 + length) // PAGE))
        raw = self.data[page * PAGE : page * PAGE + 16 + length]
        assert struct.unpack_from("<IB3xQ", raw) == (page, 3, length)
        assert zlib.crc32(raw) == checksum
        return raw[16:]

    def replay(self, raw: bytes, number: int) -> None:
        magic, version, store_id, own, lsn = struct.unpack_from("<16sI16sQQ", raw)
        assert (magic, version, store_id, own) == (b"treestore log\0\0\0", 2, self.store_id, number)
        assert zlib.crc32(raw[:52]) == int.from_bytes(raw[52:56], "little")
        salt = zlib.crc32(store_id + number.to_bytes(8, "little"))
        marker = (zlib.crc32(b"record", salt) | 1).to_bytes(4, "little")
        at = 4096
        while raw[at : at + 4] == marker:
            checksum, length, kind, found, batch = struct.unpack_from("<IIB3xQQ", raw, at + 4)
            payload = raw[at + 32 : at + 32 + length]
            assert (kind, found) == (1, lsn)
            assert batch <= lsn
            assert checksum == zlib.crc32(payload, zlib.crc32(raw[at + 8 : at + 32], salt))
            if lsn > self.lsn:
                self.apply(msgspec.msgpack.decode(payload))
                self.replayed += 1
            lsn += 1
            at += 32 + length + -(32 + length) % 8

    def apply(self, changes: list[list[Any]]) -> None:
        for change in changes:
            keys, values, ranges, grafts = [*change[1:], [], [], [], []][:4]
            entries = self.trees.setdefault(change[0], {})
            for low, high in ranges:
                gone = [key for key in entries if low <= key and (high is None or key < high)]
                self.seen |= {"range"} if gone else set()
                for key in gone:
                    del entries[key]
            for graft in grafts:
                self.link(entries, *graft)
            for key, value in zip(keys, values, strict=True):
                if value is None:
                    self.seen |= {"delete"} if entries.pop(key, None) is not None else set()
                else:
                    self.seen.add("put")
                    entries[key] = value

    def link(
        self, entries: Entries, leaves: list[tuple[bytes, int]], last: bytes, count: int, runs: list[tuple[int, int]]
    ) -> None:
        """Leaves that lie in the data file already, on pages that were free or behind its end."""
        self.seen.add("graft")
        pages = {page for first, length in runs for page in range(first, first + length)}
        assert pages <= self.unused
        self.unused -= pages
        before = self.used - pages
        self.used = before.copy()
        found: Entries = {}
        for (bound, reference), following in zip(leaves, [*(bound for bound, _ in leaves[1:]), None], strict=True):
            leaf = self.leaf(reference)
            assert bound <= min(leaf)
            assert following is None or max(leaf) < following
            found |= leaf
        assert self.used - before == pages, "they and their values take all pages that are named"
        assert (len(found), max(found), min(found)) == (count, last, leaves[0][0])
        assert not found.keys() & entries.keys()
        entries |= found

    def layout(self, policy: str, version: str) -> tuple[int, list[Any]]:
        """The number of a policy and where a version of it lies."""
        number = msgspec.msgpack.decode(self.trees[4][policy.encode()])[0]
        return number, msgspec.msgpack.decode(self.trees[5][number.to_bytes(4, "big") + version.encode()])

    def nodes(self, policy: str, version: str) -> list[list[Any]]:
        """The fields of a version's nodes, in order, read as FORMAT.md says."""
        own, (_, count, _, texts, rows, _, _) = self.layout(policy, version)
        ids = msgspec.msgpack.encode(policy) + msgspec.msgpack.encode(version)
        found = []
        for ordinal in range(count):
            row = self.trees[6][struct.pack(">II", own, numbered(rows, ordinal))]
            text = self.trees[8].get(struct.pack(">II", own, numbered(texts, ordinal)))
            assert (text is None) == (row[-34:-32] != b"\xc4\x20")
            found.append(msgspec.msgpack.decode(b"\xdc\x00\x18" + ids + row + (text or b"\xc0")))  # 24 fields
        return found

    def terms(self, policy: str, version: str) -> list[dict[str, int]]:
        """How often each node of a version has each term, proved against the lengths."""
        _, (_, count, _, _, _, _, layers) = self.layout(policy, version)
        assert count <= 16384, "one segment"
        rows: dict[str, bytes] = {}
        lengths: tuple[int, ...] = ()
        for content in (number.to_bytes(4, "big") for number in reversed(layers)):
            rows |= {key[6:].decode(): row for key, row in self.trees[12].items() if key[:6] == content + bytes(2)}
            packed = self.trees[13].get(content + bytes(4))
            lengths = lengths if packed is None else struct.unpack(f"<{count}H", packed)
        found: list[dict[str, int]] = [{} for _ in range(count)]
        last = ""
        assert min(rows) == ""
        for name, row in sorted(rows.items()):
            for term, block in zip(*msgspec.msgpack.decode(row), strict=True):
                assert last < term >= name
                last = term
                for least, frequency, nodes in block:
                    for place in [nodes] if isinstance(nodes, int) else struct.unpack(f"<{len(nodes) // 2}H", nodes):
                        assert least <= lengths[place]
                        assert least.bit_length() == lengths[place].bit_length()
                        found[place][term] = frequency
        assert [sum(of_node.values()) for of_node in found] == list(lengths)
        return found

    def pages(self, policy: str, version: str) -> list[tuple[int, ...]]:
        """The page ranges of a version of up to 128 nodes that have one: first page, last page, ordinal."""
        _, (_, _, _, _, _, (_, _, content), _) = self.layout(policy, version)
        row = self.trees[14][content.to_bytes(4, "big") + bytes(5)]
        assert row[0] == 0, "the root is a leaf row"
        count = (len(row) - 1) // 12
        columns = struct.unpack(f"<{3 * count}I", row[1:])
        return list(zip(columns[:count], columns[count : 2 * count], columns[2 * count :], strict=True))


def numbered(runs: list[list[int]], index: int) -> int:
    """The number of an index in runs."""
    [number] = [start + index - first for first, start, length in runs if first <= index < first + length]
    return number


def stranger(folder: Path = GOLDEN) -> Stranger:
    with tarfile.open(folder / "store.tar.gz") as archive:
        files = {}
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None
            files[entry.name] = content.read()
    return Stranger(files)


@pytest.mark.parametrize(("folder", "replayed"), [(GOLDEN, 2), (LINKED, 7)], ids=["btree-2", "btree-2-linked"])
def test_a_stranger_reads_the_golden_stores(folder: Path, replayed: int) -> None:
    reader = stranger(folder)
    assert reader.replayed == replayed
    expected = msgspec.json.decode((folder / "expected.json").read_bytes())
    for name, whole in expected.items():
        policy, _, version = name.partition(" ")
        if "nodes" not in whole:
            continue
        found = reader.nodes(policy, version)
        assert [fields[2] for fields in found] == [node[2] for node in whole["nodes"]]
        assert [fields[4] for fields in found] == [node[4] for node in whole["nodes"]]
        assert [fields[-1] for fields in found] == [node[-1] for node in whole["nodes"]]
        if whole["version"][-2]:  # analyzer
            terms = reader.terms(policy, version)
            assert sum(sum(of_node.values()) for of_node in terms) == whole["version"][-1]  # term_count


def test_a_stranger_finds_words_and_pages_in_the_golden_store() -> None:
    reader = stranger()
    large = reader.terms("large", "1")
    ids = [fields[2] for fields in reader.nodes("large", "1")]
    assert large[ids.index("00198")] == {"node": 2, "198": 2, "text": 1}
    assert [at for at, of_node in enumerate(large) if "amend" in of_node] == [ids.index("00199")]
    assert large[ids.index("00199")] == {"node": 1, "199": 1, "amend": 1, "log": 1, "onli": 1}
    assert [at for at, of_node in enumerate(reader.terms("shapes", "1")) if "long" in of_node] == [2]
    assert reader.terms("shapes", "1")[2]["long"] == 2001
    assert reader.terms("shapes", "2")[2] == {"amend": 2, "text": 1}
    assert reader.pages("shapes", "1") == [(1, 2**31 - 1, 0)]
    assert reader.pages("large", "1") == []
