"""The bytes on disk: pages, meta pages, free list pages and log records. FORMAT.md, one folder up, says the same in prose.

All integers are little-endian. A *reference* to a page is one integer, ``page << 32 | crc``: whoever points to a page also
knows its checksum, so a page that is stale, misplaced or damaged is noticed by its parent. Functions here turn bytes into
values and back and raise Corrupted for bytes that make no sense; they do no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from zlib import crc32

import msgspec

from treestore.errors import Corrupted, MigrationError

FORMAT_VERSION = 2
PAGE_SIZE = 8192  # best for reads and writes together, of 4, 8, 16 and 32 KiB
META_SIZE = 4096  # a meta page fills one sector of today's disks, so the two never share one
META_SLOTS = (0, META_SIZE)  # byte offsets of the two meta pages; together they fill page 0
MAGIC = b"treestore btree\0"
MAX_TREES = 32  # a meta page has room for this many roots
MAX_PAGE = 2**32 - 1  # page numbers have 32 bits: 32 TiB
MAX_KEY = 1024  # bytes; a branch of the longest keys still has seven children
MAX_INLINE = 2048  # bytes; a longer value goes to overflow pages. A leaf holds at least two entries

# Page types. 0 is never valid, so a page of zeros is not a page. A leaf that holds a pointer to overflow pages has a type of
# its own, so that deleting a range frees plain leaves without decoding them.
LEAF, BRANCH, OVERFLOW, FREELIST, POINTING_LEAF = 1, 2, 3, 4, 5

_PAGE = struct.Struct("<IBBHI")  # checksum, type, level, count, bytes used after the header
PAGE_HEADER = _PAGE.size
CELL = 4  # bytes of bookkeeping for one entry of a leaf: two lengths
BRANCH_CELL = 10  # for one child of a branch: a reference and a separator's length (the last child has no separator)
_POINTER = struct.Struct("<IIQ")  # an overflow value in a leaf: first page, checksum, length in bytes
POINTER = _POINTER.size
_OVERFLOW_MARK = 0xFFFF  # in place of a value's length: the cell holds a pointer
_RUN_HEADER = struct.Struct("<IB3xQ")  # in front of an overflow value: first page, type, length
RUN_HEADER = _RUN_HEADER.size


class Overflow:
    """A value that lies on pages of its own. ``content`` is there until the pages are written."""

    __slots__ = ("checksum", "content", "length", "page")

    def __init__(self, page: int, checksum: int, length: int, content: bytes | None = None) -> None:
        self.page = page
        self.checksum = checksum
        self.length = length
        self.content = content

    @property
    def pages(self) -> int:
        """How many pages, one after another, it takes."""
        return -(-(RUN_HEADER + self.length) // PAGE_SIZE)


Value = bytes | Overflow


def damaged(page: int, why: str) -> Corrupted:
    """The error for a page that is not what was written."""
    return Corrupted(f"data file, page {page} (byte {page * PAGE_SIZE}): {why}")


# --- pages ---------------------------------------------------------------------------------------------------------------


def _seal(page: int, kind: int, level: int, count: int, body: bytes) -> tuple[int, bytes]:
    header = _PAGE.pack(0, kind, level, count, len(body))
    checksum = crc32(body, crc32(header[4:], page))
    raw = b"".join((checksum.to_bytes(4, "little"), header[4:], body))
    return page << 32 | checksum, raw.ljust(PAGE_SIZE, b"\0")


def encode_leaf(page: int, keys: Sequence[bytes], values: Sequence[Value]) -> tuple[int, bytes]:
    """A leaf's reference and its PAGE_SIZE bytes."""
    cells = [value for value in values if type(value) is bytes]
    lengths = list(map(len, cells))
    kind = LEAF
    if len(cells) < len(values):
        cells, lengths, kind = [], [], POINTING_LEAF
        for value in values:
            if isinstance(value, Overflow):
                cells.append(_POINTER.pack(value.page, value.checksum, value.length))
                lengths.append(_OVERFLOW_MARK)
            else:
                cells.append(value)
                lengths.append(len(value))
    count = len(keys)
    table = struct.pack(f"<{2 * count}H", *map(len, keys), *lengths)
    return _seal(page, kind, 0, count, b"".join((table, *keys, *cells)))


def encode_branch(page: int, level: int, keys: Sequence[bytes], references: Sequence[int]) -> tuple[int, bytes]:
    """A branch's reference and its PAGE_SIZE bytes; ``keys`` are the separators, one fewer than the children."""
    table = struct.pack(f"<{len(references)}Q{len(keys)}H", *references, *map(len, keys))
    return _seal(page, BRANCH, level, len(references), b"".join((table, *keys)))


def verify(reference: int, raw: bytes) -> tuple[int, int, int, int]:
    """Type, level, count and used bytes of a page, its checksum compared with the reference's. Raises Corrupted."""
    page = reference >> 32
    if len(raw) != PAGE_SIZE:
        raise damaged(page, f"the file ends after {len(raw)} of its bytes")
    checksum, kind, level, count, used = _PAGE.unpack_from(raw)
    if used > PAGE_SIZE - PAGE_HEADER:
        raise damaged(page, "its length makes no sense")
    if crc32(memoryview(raw)[4 : PAGE_HEADER + used], page) != checksum:
        raise damaged(page, "its checksum does not fit its content")
    if checksum != reference & 0xFFFFFFFF:
        raise damaged(page, "it is not the page that its parent points to")
    return kind, level, count, used


def decode_leaf(page: int, raw: bytes, count: int, used: int) -> tuple[tuple[bytes, ...], tuple[Value, ...]]:
    """Keys and values of a verified leaf page."""
    if 4 * count > used:
        raise damaged(page, "its count makes no sense")
    lengths = struct.unpack_from(f"<{2 * count}H", raw, PAGE_HEADER)
    sizes = lengths[count:]
    plain = _OVERFLOW_MARK not in sizes
    if not plain:
        sizes = tuple([POINTER if size == _OVERFLOW_MARK else size for size in sizes])
    start, end = PAGE_HEADER + 4 * count, PAGE_HEADER + used
    middle = start + sum(lengths[:count])
    if middle + sum(sizes) != end:
        raise damaged(page, "its lengths do not fill it")
    keys, cells = _cells(raw, lengths[:count], start, middle), _cells(raw, sizes, middle, end)
    if plain:
        return keys, cells
    pairs = zip(cells, lengths[count:], strict=True)
    return keys, tuple([Overflow(*_POINTER.unpack(cell)) if size == _OVERFLOW_MARK else cell for cell, size in pairs])


def find_in_leaf(page: int, raw: bytes, count: int, used: int, key: bytes) -> bytes | None:
    """The value of a key in a verified page of type LEAF, of which nothing but the keys on the way is taken out. Where a key
    lies is the sum of the lengths before it; of those each is added once."""
    if 4 * count > used:
        raise damaged(page, "its count makes no sense")
    lengths = struct.unpack_from(f"<{2 * count}H", raw, PAGE_HEADER)
    offset = PAGE_HEADER + 4 * count
    values = offset + sum(lengths[:count])
    if values + sum(lengths[count:]) != PAGE_HEADER + used:
        raise damaged(page, "its lengths do not fill it")
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        begin = offset + sum(lengths[low:middle])
        end = begin + lengths[middle]
        found = raw[begin:end]
        if found == key:
            at = values + sum(lengths[count : count + middle])
            return raw[at : at + lengths[count + middle]]
        if found < key:
            low, offset = middle + 1, end
        else:
            high = middle
    return None


def decode_branch(page: int, raw: bytes, count: int, used: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Separators and references of a verified branch page."""
    if count == 0 or 10 * count - 2 > used:
        raise damaged(page, "its count makes no sense")
    table = struct.unpack_from(f"<{count}Q{count - 1}H", raw, PAGE_HEADER)
    start, end = PAGE_HEADER + 10 * count - 2, PAGE_HEADER + used
    if start + sum(table[count:]) != end:
        raise damaged(page, "its lengths do not fill it")
    return _cells(raw, table[count:], start, end), table[:count]


def _cells(raw: bytes, lengths: tuple[int, ...], start: int, end: int) -> tuple[bytes, ...]:
    """What lies one after the other from ``start`` to ``end``. Most keys of a page are of one length: those are cut in C."""
    count = len(lengths)
    if count and lengths[0] and lengths.count(lengths[0]) == count:
        return tuple(chain.from_iterable(struct.iter_unpack(f"{lengths[0]}s", raw[start:end])))
    return tuple([raw[a:b] for a, b in pairwise(accumulate(lengths, initial=start))])


def encode_overflow(page: int, content: bytes) -> tuple[int, bytes]:
    """Checksum and bytes (a multiple of PAGE_SIZE) of a value on overflow pages."""
    header = _RUN_HEADER.pack(page, OVERFLOW, len(content))
    whole = -(-(RUN_HEADER + len(content)) // PAGE_SIZE) * PAGE_SIZE
    return crc32(content, crc32(header)), (header + content).ljust(whole, b"\0")


def decode_overflow(value: Overflow, raw: bytes) -> bytes:
    """The content of a value from the bytes of its pages (the padding may be missing). Raises Corrupted."""
    end = RUN_HEADER + value.length
    if len(raw) < end or raw[:RUN_HEADER] != _RUN_HEADER.pack(value.page, OVERFLOW, value.length):
        raise damaged(value.page, "it does not begin the overflow value that its leaf points to")
    if crc32(memoryview(raw)[:end]) != value.checksum:
        raise damaged(value.page, "the checksum of its overflow value does not fit")
    return raw[RUN_HEADER:end]


RUNS_PER_PAGE = (PAGE_SIZE - PAGE_HEADER - 8) // 8


def encode_freelist(page: int, following: int, runs: list[tuple[int, int]]) -> tuple[int, bytes]:
    """A page of the free list: the reference of the next one (0: the last) and up to RUNS_PER_PAGE (page, count) runs."""
    flat = [number for run in runs for number in run]
    return _seal(page, FREELIST, 0, len(runs), struct.pack(f"<Q{len(flat)}I", following, *flat))


def decode_freelist(reference: int, raw: bytes) -> tuple[int, list[tuple[int, int]]]:
    """As :func:`encode_freelist` took it."""
    kind, _, count, used = verify(reference, raw)
    if kind != FREELIST or used != 8 + 8 * count:
        raise damaged(reference >> 32, "it is not a page of the free list")
    following, *flat = struct.unpack_from(f"<Q{2 * count}I", raw, PAGE_HEADER)
    return following, list(zip(flat[::2], flat[1::2], strict=True))


# --- meta pages ----------------------------------------------------------------------------------------------------------

_META = struct.Struct("<16sII16sQQQQQQH")
_ROOT = struct.Struct("<BBQQ")  # tree, level, entries, reference
_LOG_END = META_SIZE - 12  # where ``log_end`` is; older versions of treestore have zeros there and look at nothing of it


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint: where every tree begins and which log records it holds already.

    ``generation`` counts checkpoints; ``lsn`` is the last log record that is in it; ``epoch`` numbers the commits;
    ``page_count`` pages belong to the store; ``freelist`` refers to the first page of the free list (0: none); ``log`` is
    the number of the newest log file then (0: none); ``log_end`` is the byte behind record ``lsn`` in the log file that has it
    (0: not known). ``roots`` maps a tree's number to its level, its number of entries
    and the reference of its root.
    """

    store_id: bytes
    generation: int
    lsn: int
    epoch: int
    page_count: int
    freelist: int
    log: int
    roots: dict[int, tuple[int, int, int]]
    log_end: int = 0


def encode_meta(meta: Meta) -> bytes:
    """META_SIZE bytes."""
    raw = _META.pack(
        MAGIC,
        FORMAT_VERSION,
        PAGE_SIZE,
        meta.store_id,
        meta.generation,
        meta.lsn,
        meta.epoch,
        meta.page_count,
        meta.freelist,
        meta.log,
        len(meta.roots),
    )
    raw += b"".join(_ROOT.pack(tree, *root) for tree, root in sorted(meta.roots.items()))
    raw = raw.ljust(_LOG_END, b"\0") + meta.log_end.to_bytes(8, "little")
    return raw + crc32(raw).to_bytes(4, "little")


def other_format(what: str, version: int) -> MigrationError:
    """The error for a store that is not of this format, with the way on."""
    if version < FORMAT_VERSION:
        way = "an older treestore wrote it: write its documents to files with that one (treestore export) and ingest them here"
    else:
        way = "open it with the version of treestore that wrote it, or a newer one"
    return MigrationError(
        f"{what}; this treestore reads format {FORMAT_VERSION} with pages of {PAGE_SIZE} bytes, and changed nothing: {way}"
    )


def decode_meta(raw: bytes) -> Meta | None:
    """None where the page is not a whole meta page. Raises MigrationError for one of another format version."""
    if len(raw) != META_SIZE or raw[:16] != MAGIC or crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        return None
    _, version, page_size, store_id, generation, lsn, epoch, page_count, freelist, log, count = _META.unpack_from(raw)
    if version != FORMAT_VERSION or page_size != PAGE_SIZE:
        raise other_format(f"the store has format {version} with pages of {page_size} bytes", version)
    if count > MAX_TREES:
        return None
    roots = {}
    for i in range(count):
        tree, *root = _ROOT.unpack_from(raw, _META.size + i * _ROOT.size)
        roots[tree] = (root[0], root[1], root[2])
    return Meta(
        store_id=store_id,
        generation=generation,
        lsn=lsn,
        epoch=epoch,
        page_count=page_count,
        freelist=freelist,
        log=log,
        roots=roots,
        log_end=int.from_bytes(raw[_LOG_END : _LOG_END + 8], "little"),
    )


# --- the log -------------------------------------------------------------------------------------------------------------

LOG_MAGIC = b"treestore log\0\0\0"
LOG_START = 4096  # records begin in a sector of their own, so writing one never rewrites the header
_LOG_HEADER = struct.Struct("<16sI16sQQI")
LOG_HEADER = _LOG_HEADER.size
_RECORD = struct.Struct("<IIIBxxxQQ")  # marker, checksum, payload length, type, LSN, first LSN of the batch
RECORD_HEADER = _RECORD.size
GROUP = 1  # the record's type; 0 is reserved, so that zeros are never a record
MAX_PAYLOAD = 2**31


def encode_log_header(store_id: bytes, number: int, start: int) -> bytes:
    """The first bytes of log file ``number``, whose first record will have LSN ``start``."""
    head = _LOG_HEADER.pack(LOG_MAGIC, FORMAT_VERSION, store_id, number, start, 0)[:-4]
    return head + crc32(head).to_bytes(4, "little")


def decode_log_header(raw: bytes) -> tuple[bytes, int, int] | None:
    """Store id, file number and first LSN; None where it is no whole header."""
    if len(raw) < LOG_HEADER:
        return None
    magic, version, store_id, number, start, checksum = _LOG_HEADER.unpack_from(raw)
    if magic != LOG_MAGIC or crc32(raw[: LOG_HEADER - 4]) != checksum:
        return None
    if version != FORMAT_VERSION:
        raise other_format(f"a file of the store's log has format {version}", version)
    return store_id, number, start


def log_salt(store_id: bytes, number: int) -> int:
    """What every checksum in a log file begins with, so that records of a recycled file's earlier life never fit."""
    return crc32(store_id + number.to_bytes(8, "little"))


def log_marker(salt: int) -> bytes:
    """Four bytes that begin each record of one log file; never zeros."""
    return (crc32(b"record", salt) | 1).to_bytes(4, "little")


def encode_record(salt: int, lsn: int, batch: int, payload: bytes) -> bytes:
    """A log record, padded to eight bytes."""
    head = _RECORD.pack(0, 0, len(payload), GROUP, lsn, batch)[8:]
    checksum = crc32(payload, crc32(head, salt))
    raw = b"".join((log_marker(salt), checksum.to_bytes(4, "little"), head, payload))
    return raw + b"\0" * (-len(raw) % 8)


class RecordHead(msgspec.Struct, frozen=True):
    """The header of a log record, not yet verified. ``size`` is that of the whole record with its padding."""

    checksum: int
    length: int
    kind: int
    lsn: int
    batch: int
    raw: bytes

    @property
    def size(self) -> int:
        whole = RECORD_HEADER + self.length
        return whole + -whole % 8

    def fits(self, salt: int, payload: bytes) -> bool:
        """Whether header and payload are what was written to this file."""
        return len(payload) == self.length and crc32(payload, crc32(self.raw[8:], salt)) == self.checksum


def decode_record(salt: int, raw: bytes) -> RecordHead | None:
    """The record header at the beginning of ``raw``; None where there is none of this file."""
    if len(raw) < RECORD_HEADER or raw[:4] != log_marker(salt):
        return None
    _, checksum, length, kind, lsn, batch = _RECORD.unpack_from(raw)
    if kind != GROUP or length > MAX_PAYLOAD:
        return None
    return RecordHead(checksum, length, kind, lsn, batch, raw[:RECORD_HEADER])
