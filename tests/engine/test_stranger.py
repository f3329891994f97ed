"""A reader of the golden store written from FORMAT.md alone, without any of the engine's code."""

from __future__ import annotations

import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "btree-1"
PAGE = 8192
Entries = dict[bytes, bytes]


class Stranger:
    """Reads the files of a store, by name, and applies its log."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.data = files["data"]
        metas = [self.data[at : at + 4096] for at in (0, 4096)]
        valid = [raw for raw in metas if zlib.crc32(raw[:4092]) == int.from_bytes(raw[4092:], "little")]
        meta = max(valid, key=lambda raw: int.from_bytes(raw[40:48], "little"))
        assert meta[:16] == b"treestore btree\0"
        assert struct.unpack_from("<II", meta, 16) == (1, PAGE)
        self.store_id = meta[24:40]
        _, self.lsn, _, self.page_count, freelist, newest_log = struct.unpack_from("<6Q", meta, 40)
        assert not newest_log or f"wal/{newest_log:020}.log" in files
        self.used: set[int] = {0}
        self.trees: dict[int, Entries] = {}
        for at in range(90, 90 + 18 * int.from_bytes(meta[88:90], "little"), 18):
            tree, level, entries, reference = struct.unpack_from("<BBQQ", meta, at)
            self.trees[tree] = self.node(reference, level)
            assert len(self.trees[tree]) == entries
        while freelist:
            freelist = self.free(freelist)
        assert self.used == set(range(self.page_count))
        self.replayed = 0
        for name in sorted(name for name in files if name.endswith(".log")):
            self.replay(files[name], int(name[4:24]))

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
        assert at_level == level
        assert checksum == found == zlib.crc32(raw[4 : 12 + used], page)
        return count, raw[12 : 12 + used]

    def free(self, reference: int) -> int:
        count, body = self.page(reference, {4}, 0)
        for at in range(count):
            self.take(*struct.unpack_from("<II", body, 8 + 8 * at))
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
        self.take(page, -(-(16 + length) // PAGE))
        raw = self.data[page * PAGE : page * PAGE + 16 + length]
        assert struct.unpack_from("<IB3xQ", raw) == (page, 3, length)
        assert zlib.crc32(raw) == checksum
        return raw[16:]

    def replay(self, raw: bytes, number: int) -> None:
        magic, version, store_id, own, lsn = struct.unpack_from("<16sI16sQQ", raw)
        assert (magic, version, store_id, own) == (b"treestore log\0\0\0", 1, self.store_id, number)
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
                for key in [key for key in entries if low <= key and (high is None or key < high)]:
                    del entries[key]
            assert grafts == [], "the golden store's log links no leaves"
            for key, value in zip(keys, values, strict=True):
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value

    def nodes(self, policy: str, version: str) -> list[list[Any]]:
        """The fields of a version's nodes, in order, read as FORMAT.md says."""
        head = msgspec.msgpack.decode(self.trees[4][policy.encode()])
        layout = msgspec.msgpack.decode(self.trees[5][head[0].to_bytes(4, "big") + version.encode()])
        content, count, _, runs = layout
        ids = msgspec.msgpack.encode(policy) + msgspec.msgpack.encode(version)
        found = []
        for ordinal in range(count):
            row = self.trees[6][struct.pack(">II", content, ordinal)]
            [number] = [start + ordinal - first for first, start, length in runs if first <= ordinal < first + length]
            text = self.trees[8].get(struct.pack(">II", head[0], number))
            assert (text is None) == (row[-34:-32] != b"\xc4\x20")
            found.append(msgspec.msgpack.decode(b"\xdc\x00\x18" + ids + row + (text or b"\xc0")))  # 24 fields
        return found


    def content(self, policy: str, version: str) -> tuple[bytes, int]:
        """The number of a version's content as keys begin with it, and how many nodes it has."""
        head = msgspec.msgpack.decode(self.trees[4][policy.encode()])
        layout = msgspec.msgpack.decode(self.trees[5][head[0].to_bytes(4, "big") + version.encode()])
        return layout[0].to_bytes(4, "big"), layout[1]

    def terms(self, policy: str, version: str) -> list[dict[str, int]]:
        """How often each node of a version has each term, proved against the lengths."""
        content, count = self.content(policy, version)
        assert count <= 16384, "one segment"
        lengths = struct.unpack(f"<{count}H", self.trees[13][content + bytes(4)])
        found: list[dict[str, int]] = [{} for _ in range(count)]
        last = ""
        rows = {key[6:].decode(): row for key, row in sorted(self.trees[12].items()) if key[:6] == content + bytes(2)}
        assert next(iter(rows)) == ""
        for name, row in rows.items():
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
        content, _ = self.content(policy, version)
        row = self.trees[14][content + bytes(5)]
        assert row[0] == 0, "the root is a leaf row"
        count = (len(row) - 1) // 12
        columns = struct.unpack(f"<{3 * count}I", row[1:])
        return list(zip(columns[:count], columns[count : 2 * count], columns[2 * count :], strict=True))


def stranger() -> Stranger:
    with tarfile.open(GOLDEN / "store.tar.gz") as archive:
        files = {}
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None
            files[entry.name] = content.read()
    return Stranger(files)


def test_a_stranger_reads_the_golden_store() -> None:
    reader = stranger()
    assert reader.replayed == 2
    expected = msgspec.json.decode((GOLDEN / "expected.json").read_bytes())
    for name, whole in expected.items():
        policy, _, version = name.partition(" ")
        if "nodes" not in whole:
            continue
        found = reader.nodes(policy, version)
        assert [fields[2] for fields in found] == [node[2] for node in whole["nodes"]]
        assert [fields[4] for fields in found] == [node[4] for node in whole["nodes"]]
        assert [fields[-1] for fields in found] == [node[-1] for node in whole["nodes"]]
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
