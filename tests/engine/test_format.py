"""Bytes on disk: what was written comes back, and a single flipped byte or zeroed range is noticed everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.backends.btree.engine import format as fmt
from treestore.backends.btree.engine.format import Meta, Overflow, Value
from treestore.backends.btree.engine.node import decode
from treestore.errors import Corrupted, MigrationError

KEYS = st.lists(st.binary(max_size=40), unique=True, max_size=20).map(sorted)
META = Meta(
    store_id=bytes(range(16)),
    generation=2**40,
    lsn=2**33,
    epoch=2**32 + 1,
    page_count=2**32 - 1,
    freelist=(2**32 - 1) << 32 | 7,
    log=2**31,
    roots={n: (n % 4, 2**40 + n, n << 32 | 2**32 - 1) for n in range(1, fmt.MAX_TREES + 1)},
)


def assert_noticed(raw: bytes, read: Callable[[bytes], object], used: int, wrong: Callable[[object], bool]) -> None:
    """Each byte flipped, and ranges of zeros over the used bytes: ``read`` raises Corrupted or its answer is ``wrong``."""

    def noticed(damaged: bytes) -> bool:
        try:
            return wrong(read(damaged))
        except Corrupted:
            return True

    choose = random.Random(0)
    for at in range(used):
        for bit in (1 << choose.randrange(8), 0xFF):
            assert noticed(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]), f"byte {at} flipped by {bit:#x}"
    for start in range(0, used, 64):
        damaged = raw[:start] + bytes(512) + raw[start + 512 :]
        assert damaged == raw or noticed(damaged[: len(raw)]), f"zeros from byte {start}"
    for length in range(0, len(raw), 100):
        assert noticed(raw[:length]), f"cut after {length} bytes"


def never(_: object) -> bool:
    return False


@given(KEYS, st.data())
def test_leaves_come_back(keys: list[bytes], data: st.DataObject) -> None:
    def value(n: int) -> Value:
        return bytes(n) if n % 3 else Overflow(n + 1, n * 77 % 2**32, n + 5000)

    values = [value(data.draw(st.integers(0, 120))) for _ in keys]
    reference, raw = fmt.encode_leaf(2**32 - 1, keys, values)
    assert reference >> 32 == 2**32 - 1
    assert len(raw) == fmt.PAGE_SIZE
    found_keys, found = fmt.decode_leaf(2**32 - 1, raw, *fmt.verify(reference, raw)[2:])
    assert [*found_keys] == keys
    for one, two in zip(values, found, strict=True):
        if isinstance(one, Overflow):
            assert isinstance(two, Overflow)
            assert (one.page, one.checksum, one.length, two.content) == (two.page, two.checksum, two.length, None)
        else:
            assert one == two


@given(KEYS, st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_a_key_is_found_on_a_page_as_among_the_entries(keys: list[bytes], others: list[bytes], data: st.DataObject) -> None:
    values: list[Value] = [data.draw(st.binary(max_size=9)) for _ in keys]
    reference, raw = fmt.encode_leaf(7, keys, values)
    used = fmt.verify(reference, raw)[3]
    entries = dict(zip(keys, values, strict=True))
    for key in {*keys, *others}:
        assert fmt.find_in_leaf(7, raw, len(keys), used, key) == entries.get(key)


@given(KEYS)
def test_branches_come_back(keys: list[bytes]) -> None:
    references = [n << 32 | 2**32 - 1 - n for n in range(1, len(keys) + 2)]
    reference, raw = fmt.encode_branch(9, 3, keys, references)
    kind, level, *rest = fmt.verify(reference, raw)
    assert (kind, level) == (fmt.BRANCH, 3)
    assert fmt.decode_branch(9, raw, *rest) == (tuple(keys), tuple(references))


def test_damage_of_a_leaf_is_noticed() -> None:
    keys, values = [b"%03d" % n for n in range(60)], [b"value %d" % n for n in range(59)]
    reference, raw = fmt.encode_leaf(7, keys, [*values, Overflow(9, 1, 9000)])
    used = fmt.PAGE_HEADER + fmt.verify(reference, raw)[3]
    assert_noticed(raw, lambda damaged: decode(reference, damaged, 0), used, never)


def test_damage_of_a_branch_is_noticed() -> None:
    reference, raw = fmt.encode_branch(7, 2, [b"%03d" % n for n in range(40)], list(range(2**32, 2**32 + 41)))
    used = fmt.PAGE_HEADER + fmt.verify(reference, raw)[3]
    assert_noticed(raw, lambda damaged: decode(reference, damaged, 2), used, never)


def test_damage_of_a_free_list_is_noticed() -> None:
    runs = [(n * 5, n) for n in range(1, fmt.RUNS_PER_PAGE + 1)]
    reference, raw = fmt.encode_freelist(7, 3 << 32 | 99, runs)
    assert fmt.decode_freelist(reference, raw) == (3 << 32 | 99, runs)
    assert_noticed(raw, lambda damaged: fmt.decode_freelist(reference, damaged), fmt.PAGE_HEADER + 8 + 8 * len(runs), never)


@pytest.mark.parametrize("length", [0, 1, fmt.PAGE_SIZE - 17, fmt.PAGE_SIZE - 16, fmt.PAGE_SIZE - 15, 3 * fmt.PAGE_SIZE])
def test_overflow_values_come_back_and_their_damage_is_noticed(length: int) -> None:
    content = random.Random(length).randbytes(length)
    checksum, raw = fmt.encode_overflow(2**32 - 2, content)
    value = Overflow(2**32 - 2, checksum, length)
    assert len(raw) == value.pages * fmt.PAGE_SIZE
    assert fmt.decode_overflow(value, raw) == content
    raw = raw[: fmt.RUN_HEADER + length]
    choose = random.Random(1)
    for at in [*range(min(len(raw), 40)), *(choose.randrange(len(raw)) for _ in range(200))]:
        damaged = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
        with pytest.raises(Corrupted, match="page 4294967294"):
            fmt.decode_overflow(value, damaged)
    with pytest.raises(Corrupted):
        fmt.decode_overflow(value, raw[:-1])


def test_a_page_in_anothers_place_or_of_another_time_is_noticed() -> None:
    """Misdirected and lost writes: a whole, valid page, but not the one that is pointed to."""
    reference, raw = fmt.encode_leaf(7, [b"k"], [b"new"])
    _, elsewhere = fmt.encode_leaf(8, [b"k"], [b"new"])
    _, stale = fmt.encode_leaf(7, [b"k"], [b"old"])
    with pytest.raises(Corrupted, match=r"page 7 \(byte 57344\)"):
        fmt.verify(reference, elsewhere)
    with pytest.raises(Corrupted, match="not the page that its parent points to"):
        fmt.verify(reference, stale)
    with pytest.raises(Corrupted, match="type 1 and level 0 where its parent says level 1"):
        decode(reference, raw, 1)


def _refused(read: Callable[[bytes], object], raw: bytes) -> bool:
    try:
        read(raw)
    except Corrupted:
        return True
    return False


def test_pages_with_a_fitting_checksum_and_senseless_content_are_damage() -> None:
    """What a hostile file would hold: counts, lengths and sizes that lie outside the page."""
    choose = random.Random(2)
    for _ in range(3000):
        kind, level = choose.choice((fmt.LEAF, fmt.BRANCH, fmt.FREELIST, fmt.POINTING_LEAF)), choose.randrange(3)
        used = choose.choice((0, 1, 8, 30, 500, fmt.PAGE_SIZE - fmt.PAGE_HEADER))
        body = bytes(choose.choice((0, 0, 1, 255)) for _ in range(used))
        header = fmt._PAGE.pack(0, kind, level, choose.choice((0, 1, 2, 3, 1000, 65535)), used)
        checksum = crc32(body, crc32(header[4:], 5))
        raw = (checksum.to_bytes(4, "little") + header[4:] + body).ljust(fmt.PAGE_SIZE, b"\0")
        reference = 5 << 32 | checksum
        reads: list[Callable[[bytes], object]] = [
            lambda r: decode(reference, r, level),  # noqa: B023
            lambda r: fmt.decode_freelist(reference, r),  # noqa: B023
            lambda r: fmt.find_in_leaf(5, r, *fmt.verify(reference, r)[2:], b"key"),  # noqa: B023
        ]
        for read in reads:
            try:
                read(raw)
            except Corrupted as error:
                assert "page 5" in str(error)
        if kind == fmt.LEAF and level == 0:  # what is refused when all is decoded is not searched either
            found = [_refused(read, raw) for read in (reads[0], reads[2])]
            assert found[0] == found[1]
    huge = fmt._PAGE.pack(0, fmt.LEAF, 0, 1, 2**32 - 1)
    with pytest.raises(Corrupted, match="its length makes no sense"):
        fmt.verify(5 << 32, huge.ljust(fmt.PAGE_SIZE, b"\0"))
    with pytest.raises(Corrupted):
        decode(5 << 32, bytes(fmt.PAGE_SIZE), 0)  # zeros are never a page


def test_meta_pages_come_back_with_all_counters_past_32_bits() -> None:
    raw = fmt.encode_meta(META)
    assert len(raw) == fmt.META_SIZE
    assert fmt.decode_meta(raw) == META


def test_damage_of_a_meta_page_is_noticed() -> None:
    raw = fmt.encode_meta(META)
    assert_noticed(raw, fmt.decode_meta, len(raw), lambda meta: meta is None)
    for sector in range(0, fmt.META_SIZE, 512):  # torn: a part of it is of another checkpoint
        other = fmt.encode_meta(msgspec.structs.replace(META, generation=META.generation + 2, roots={1: (0, 5, 6)}))
        torn = raw[:sector] + other[sector:]
        assert torn in (raw, other) or fmt.decode_meta(torn) is None


def test_a_meta_page_that_names_more_trees_than_fit_is_damage() -> None:
    raw = bytearray(fmt.encode_meta(META))
    raw[fmt._META.size - 2 : fmt._META.size] = b"\xff\xff"
    raw[-4:] = crc32(raw[:-4]).to_bytes(4, "little")
    assert fmt.decode_meta(bytes(raw)) is None


@pytest.mark.parametrize(("at", "what"), [(16, "format 2"), (20, "pages of 8194 bytes")])
def test_other_formats_and_page_sizes_are_refused_by_name(at: int, what: str) -> None:
    raw = bytearray(fmt.encode_meta(META))
    raw[at] += 1 if at == 16 else 2
    raw[-4:] = crc32(raw[:-4]).to_bytes(4, "little")
    with pytest.raises(MigrationError, match=what):
        fmt.decode_meta(bytes(raw))


@given(st.integers(1, 2**63), st.integers(1, 2**63))
def test_log_headers_come_back(number: int, start: int) -> None:
    raw = fmt.encode_log_header(b"i" * 16, number, start)
    assert len(raw) == fmt.LOG_HEADER
    assert fmt.decode_log_header(raw + b"more") == (b"i" * 16, number, start)


def test_damage_of_a_log_header_is_noticed() -> None:
    raw = fmt.encode_log_header(b"i" * 16, 3, 77)
    for at in range(len(raw)):
        assert fmt.decode_log_header(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]) is None
        assert fmt.decode_log_header(raw[:at]) is None
    newer = bytearray(raw)
    newer[16] += 1
    newer[-4:] = crc32(newer[:-4]).to_bytes(4, "little")
    with pytest.raises(MigrationError):
        fmt.decode_log_header(bytes(newer))


@pytest.mark.parametrize("lsn", [1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63])
@pytest.mark.parametrize("payload", [b"", b"x", b"payload " * 100])
def test_log_records_come_back_and_their_damage_is_noticed(lsn: int, payload: bytes) -> None:
    salt = fmt.log_salt(b"i" * 16, 3)
    raw = fmt.encode_record(salt, lsn, lsn - 1, payload)
    assert len(raw) % 8 == 0
    used = fmt.RECORD_HEADER + len(payload)

    def read(damaged: bytes) -> bool:
        head = fmt.decode_record(salt, damaged)
        if head is None:
            return False
        return head.fits(salt, damaged[fmt.RECORD_HEADER : fmt.RECORD_HEADER + head.length])

    head = fmt.decode_record(salt, raw)
    assert head is not None
    assert (head.lsn, head.batch, head.length, head.size) == (lsn, lsn - 1, len(payload), len(raw))
    assert read(raw)
    for at in range(used):
        assert not read(raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :]), f"byte {at}"
    assert not read(bytes(len(raw)))


def test_a_record_of_a_files_earlier_life_never_fits() -> None:
    """Neither under another number nor in another store."""
    raw = fmt.encode_record(fmt.log_salt(b"i" * 16, 3), 5, 5, b"payload")
    for salt in (fmt.log_salt(b"i" * 16, 4), fmt.log_salt(b"j" * 16, 3)):
        assert fmt.decode_record(salt, raw) is None
        marked = fmt.log_marker(salt) + raw[4:]  # even with the right marker
        head = fmt.decode_record(salt, marked)
        assert head is not None
        assert not head.fits(salt, b"payload")
