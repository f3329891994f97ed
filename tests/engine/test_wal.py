"""The log: a torn end is cut, damage is refused and located, and old records in a file used again never count."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.engine.simulated import SimulatedDisk
from tests.growth import grows_at_most
from treestore.backends.btree.engine import wal
from treestore.backends.btree.engine.format import LOG_START, RECORD_HEADER, encode_log_header, encode_record, log_salt
from treestore.backends.btree.engine.wal import KEPT_FILES, SPARE, Log, begun_files, file_name, log_numbers, read_log
from treestore.errors import Corrupted, DiskFull, OutcomeUnknown, TreestoreError, Unavailable

FOLDER = "/disk/wal"
STORE_ID = b"0123456789abcdef"
Records = list[tuple[int, bytes]]


def disk_with_folder() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_folder(FOLDER)
    disk.sync_folder("/disk")
    return disk


def log_of(disk: SimulatedDisk, *, after: int = 0, number: int = 0, file_size: int = 1 << 20) -> Log:
    return Log(disk, FOLDER, STORE_ID, next_lsn=after + 1, number=number, file_size=file_size)


def append(log: Log, *batches: list[bytes]) -> None:
    for batch in batches:
        log.append(batch)
        log.sync()


def read(disk: SimulatedDisk, after: int = 0, newest: int = 0, store_id: bytes = STORE_ID, end: int = 0) -> Records:
    return [record[:2] for record in read_log(disk, FOLDER, store_id, after, newest, end)]


def numbered(payloads: list[bytes], first: int = 1) -> Records:
    return list(enumerate(payloads, first))


def file_of(disk: SimulatedDisk, number: int) -> bytearray:
    inode = disk.names[f"{FOLDER}/{file_name(number)}"]
    assert inode is not None
    return inode.current


def offsets(payloads: list[bytes]) -> list[int]:
    """Where the records of a file begin, and where the last one ends."""
    found = [LOG_START]
    for payload in payloads:
        size = RECORD_HEADER + len(payload)
        found.append(found[-1] + size + -size % 8)
    return found


PAYLOADS = [b"", b"one", b"two " * 50, b"x" * 1000, b"last"]


def test_records_come_back_in_order_whatever_their_batches() -> None:
    disk = disk_with_folder()
    append(log_of(disk), PAYLOADS[:1], PAYLOADS[1:4], PAYLOADS[4:])
    assert read(disk) == numbered(PAYLOADS)
    assert read(disk, after=3) == numbered(PAYLOADS)[3:]
    assert read(disk, after=5) == []


@pytest.mark.parametrize("first", [2**31 - 1, 2**32 - 1, 2**63 - 9])
def test_numbers_past_31_and_32_bits(first: int) -> None:
    disk = disk_with_folder()
    append(log_of(disk, after=first - 1, number=2**32 - 1), PAYLOADS[:2], PAYLOADS[2:])
    assert read(disk, after=first - 1) == numbered(PAYLOADS, first)
    assert log_numbers(disk, FOLDER) == [2**32]


def test_cut_at_every_byte_it_is_a_prefix() -> None:
    disk = disk_with_folder()
    append(log_of(disk), PAYLOADS[:2], PAYLOADS[2:])
    whole, ends = bytes(file_of(disk, 1)), offsets(PAYLOADS)
    for length in range(LOG_START, ends[-1] + 1):
        whole_records = sum(end <= length for end in ends[1:])
        for tail in (b"", bytes(200)):
            file_of(disk, 1)[:] = whole[:length] + tail
            found = read(disk)
            lacking = next((n for n, end in enumerate(ends[1:]) if length < end - 8), len(PAYLOADS))
            assert found == numbered(PAYLOADS)[: len(found)]
            assert whole_records <= len(found) <= lacking + 1, f"cut at byte {length}"


def test_zeros_are_never_a_record() -> None:
    disk = disk_with_folder()
    append(log_of(disk), [b"only"])
    assert len(file_of(disk, 1)) > LOG_START + 10_000
    assert read(disk) == [(1, b"only")]


def test_the_torn_end_of_a_batch_is_cut_whichever_of_its_records_is_whole() -> None:
    """A batch is one write: the disk may have kept its end and lost its beginning."""
    disk = disk_with_folder()
    append(log_of(disk), PAYLOADS[:2], PAYLOADS[2:])
    whole, ends = bytes(file_of(disk, 1)), offsets(PAYLOADS)
    for torn in (2, 3, 4):
        file_of(disk, 1)[:] = whole
        file_of(disk, 1)[ends[torn] + 4] ^= 1
        assert read(disk) == numbered(PAYLOADS)[:torn]


def test_damage_that_a_later_batch_follows_is_refused_and_located() -> None:
    disk = disk_with_folder()
    append(log_of(disk), *([payload] for payload in PAYLOADS))
    whole, ends = bytes(file_of(disk, 1)), offsets(PAYLOADS)
    for record in range(4):
        for at in range(ends[record], ends[record + 1]):
            if at >= ends[record] + RECORD_HEADER + len(PAYLOADS[record]):
                continue  # padding
            file_of(disk, 1)[:] = whole
            file_of(disk, 1)[at] ^= 0x20
            with pytest.raises(Corrupted, match=rf"0001\.log, byte {ends[record]}: record {record + 1} is damaged"):
                read(disk)


def test_damage_before_the_end_is_found_however_far_the_later_batch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search goes in windows; a record's marker may lie across two of them."""
    disk = disk_with_folder()
    append(log_of(disk), [b"first"], [b"x" * 3000], [b"later"])
    file_of(disk, 1)[LOG_START + 9] ^= 1
    for window in (64, 100, 333, 1024):
        monkeypatch.setattr(wal, "_SEARCH", window)
        with pytest.raises(Corrupted, match=r"record 1 is damaged, and record [23] was synced after it"):
            read(disk)


def test_nothing_is_read_past_a_bad_record() -> None:
    disk = disk_with_folder()
    append(log_of(disk), [b"a"], [b"b"], [b"c"])
    file_of(disk, 1)[offsets([b"a"])[1] + RECORD_HEADER] ^= 1
    found: Records = []
    with pytest.raises(Corrupted):
        found.extend(record[:2] for record in read_log(disk, FOLDER, STORE_ID, 0, 0))
    assert found == [(1, b"a")]


def rotated(disk: SimulatedDisk, groups: int = 12) -> list[bytes]:
    """A log of several small files."""
    log = log_of(disk, file_size=LOG_START + 2000)
    payloads = [b"%03d" % n * 200 for n in range(groups)]
    append(log, *([payload] for payload in payloads))
    assert len(log_numbers(disk, FOLDER)) > 2
    return payloads


def test_the_log_goes_on_in_the_next_file() -> None:
    disk = disk_with_folder()
    payloads = rotated(disk)
    for after in range(len(payloads) + 1):
        assert read(disk, after=after) == numbered(payloads)[after:]


def test_reading_begins_where_the_record_before_ends() -> None:
    disk = disk_with_folder()
    append(log_of(disk), PAYLOADS[:2], PAYLOADS[2:4], PAYLOADS[4:])
    ends = offsets(PAYLOADS)
    assert [record.end for record in read_log(disk, FOLDER, STORE_ID, 0, 0)] == ends[1:]
    for after in (2, 4, 5):
        file_of(disk, 1)[LOG_START : ends[after]] = bytes(ends[after] - LOG_START)
        assert read(disk, after=after, end=ends[after]) == numbered(PAYLOADS)[after:]
    file_of(disk, 1)[ends[2] :] = b""
    assert read(disk, after=4, end=ends[4]) == [], "the file ends before: as after a torn end"


def test_reading_begins_at_the_first_record_of_a_file_that_follows() -> None:
    """The end of the record before is a place in another file."""
    disk = disk_with_folder()
    payloads = rotated(disk)
    known = [(record.lsn, record.end) for record in read_log(disk, FOLDER, STORE_ID, 0, 0)]
    assert len({end for _, end in known}) < len(known)
    for after, end in known:
        assert read(disk, after=after, end=end) == numbered(payloads)[after:]


def test_a_finished_log_goes_on_in_a_small_file_that_no_cut_makes_more_than_a_name() -> None:
    disk = disk_with_folder()
    log = log_of(disk, file_size=LOG_START + 2000)
    append(log, *([b"old %03d " % lsn * 60] for lsn in range(1, 31)))
    log.trim(30)
    append(log, [b"last"])
    before, found = log.number, []
    disk.hook = lambda kind, path: found.append(disk.after_cut(len(found)))
    log.finish()
    disk.hook = None
    assert (log.number, len(file_of(disk, log.number))) == (before + 1, LOG_START)
    for cut in [*found, disk]:
        assert read(cut, after=30, newest=before) == [(31, b"last")]
        begun = begun_files(cut, FOLDER, STORE_ID, before)[-1].number
        append(log_of(cut, after=31, number=begun), [b"again"])
        assert read(cut, after=30, newest=before) == [(31, b"last"), (32, b"again")]


def test_damage_in_a_file_that_another_follows_is_refused() -> None:
    disk = disk_with_folder()
    rotated(disk)
    file_of(disk, 2)[LOG_START + RECORD_HEADER + 1] ^= 1
    with pytest.raises(Corrupted, match=r"0002\.log, byte 4096: record \d+ is damaged"):
        read(disk)


def test_a_missing_file_is_refused() -> None:
    for number, why in ((1, "records 1 to"), (2, "is damaged|are missing|is missing"), (9, "0009.log is missing")):
        disk = disk_with_folder()
        rotated(disk)
        if number < 9:
            disk.remove(f"{FOLDER}/{file_name(number)}")
        with pytest.raises(Corrupted, match=why):
            read(disk, newest=number if number == 9 else 0)


def test_a_damaged_header_is_refused_unless_the_file_was_only_named() -> None:
    disk = disk_with_folder()
    payloads = rotated(disk)
    newest = log_numbers(disk, FOLDER)[-1]
    for number in range(1, newest + 1):
        whole = bytes(file_of(disk, number))
        file_of(disk, number)[20] ^= 1
        with pytest.raises(Corrupted, match=f"{file_name(number)}, byte 0: its header"):
            read(disk)
        file_of(disk, number)[:] = whole
    disk.open(f"{FOLDER}/{file_name(newest + 1)}", create=True)
    assert read(disk) == numbered(payloads), "a file that was named and not begun when the power went"
    with pytest.raises(Corrupted, match="its header"):
        read(disk, newest=newest + 1)


def test_another_stores_log_is_refused() -> None:
    disk = disk_with_folder()
    rotated(disk)
    with pytest.raises(Corrupted, match="belongs to another store"):
        read(disk, store_id=b"another store's!")


def test_a_file_under_anothers_number_is_refused() -> None:
    disk = disk_with_folder()
    rotated(disk)
    file_of(disk, 2)[:] = file_of(disk, 3)
    with pytest.raises(Corrupted, match="its header is damaged or another file's"):
        read(disk)


def test_files_that_a_checkpoint_holds_are_retired_and_used_again() -> None:
    disk = disk_with_folder()
    log = log_of(disk, file_size=LOG_START + 2000)
    choose, sent = random.Random(0), 0
    names = set()
    for turn in range(40):
        append(log, *([choose.randbytes(700)] for _ in range(5)))
        sent += 5
        log.trim(sent - 3)
        names |= set(disk.list(FOLDER))
        assert len(log_numbers(disk, FOLDER)) <= KEPT_FILES + 3
        assert [lsn for lsn, _ in read(disk, after=sent - 3, newest=log.number)] == [sent - 2, sent - 1, sent]
        assert turn < 5 or SPARE in disk.list(FOLDER) or log.number > 3
    assert SPARE in names
    log.trim(sent)
    assert len(log_numbers(disk, FOLDER)) == KEPT_FILES


def test_a_file_used_again_shows_nothing_of_its_earlier_life_at_any_cut() -> None:
    disk = disk_with_folder()
    log = log_of(disk, file_size=LOG_START + 2000)
    for lsn in range(1, 31):
        append(log, [b"old %03d " % lsn * 60])
    log.trim(30)
    assert SPARE in disk.list(FOLDER)
    before = log.number
    while log.number == before:
        append(log, [b"new" * 100], [b"new"])
    whole = bytes(file_of(disk, log.number))
    assert b"old" in whole, "the file is one that was used before"
    records = read(disk, after=30)
    for length in range(LOG_START, len(whole), 97):
        for earlier in (whole[length:], bytes(len(whole) - length)):
            file_of(disk, log.number)[:] = whole[:length] + earlier
            assert all(not payload.startswith(b"old") for _, payload in read(disk, after=30))
    file_of(disk, log.number)[:] = whole
    assert read(disk, after=30) == records


@pytest.mark.parametrize("beside", [True, False], ids=["while it is retired", "after its retiring failed"])
def test_a_file_is_used_again_only_when_its_old_name_is_gone_for_good(beside: bool) -> None:
    """Or a cut brings the old name back, with the file's new life under it."""
    disk = disk_with_folder()
    log = log_of(disk, file_size=LOG_START + 2000)
    append(log, *([b"old %03d " % lsn * 60] for lsn in range(1, 31)))
    before = log.number
    found: list[tuple[int, SimulatedDisk]] = []

    def fill() -> None:
        """Begin the next file, with cuts at each operation."""
        acknowledged = 30
        disk.hook = lambda kind, path: found.append((acknowledged, disk.after_cut(len(found), 0.0)))
        while log.number == before:
            append(log, [b"new" * 100])
            acknowledged += 1
        disk.hook = None

    if beside:
        disk.hook = lambda kind, path: fill() if kind == "rename" else None
        log.trim(30)
    else:
        disk.fault = lambda number, kind, path: Unavailable("no") if kind == "remove" else None
        with pytest.raises(Unavailable):
            log.trim(30)
        fill()
    assert any(cut.exists(f"{FOLDER}/{file_name(before + 1)}") for _, cut in found)
    for acknowledged, cut in found:
        assert len(read(cut, after=30, newest=before)) - (acknowledged - 30) in (0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_is_used_again_has_one_name_after_any_cut(seed: int) -> None:
    """A file is retired but its new name is not durable, as the next removal failed; then it is used again. A cut that keeps
    the second change of its name and not the first leaves it under two names, one of which the next opening begins."""
    disk = disk_with_folder()
    log = log_of(disk, file_size=LOG_START + 2000)
    append(log, *([b"old %03d " % lsn * 60] for lsn in range(1, 31)))
    before = log.number
    disk.fault = lambda number, kind, path: Unavailable("no") if kind == "remove" else None
    with pytest.raises(Unavailable):
        log.trim(30)
    disk.fault = None
    found: list[SimulatedDisk] = []
    disk.hook = lambda kind, path: found.append(disk.after_cut(seed))
    while log.number == before:
        append(log, [b"new" * 100])
    disk.hook = None
    for cut in found:
        kept = read(cut, after=30, newest=before)
        begun = begun_files(cut, FOLDER, STORE_ID, before)[-1].number
        append(log_of(cut, after=30 + len(kept), number=begun), [b"again"])
        assert read(cut, after=30, newest=before) == [*kept, (31 + len(kept), b"again")]


def test_a_write_that_failed_is_taken_back() -> None:
    disk = disk_with_folder()
    log = log_of(disk)
    append(log, [b"before"])
    failures = iter([Unavailable("no")])
    disk.fault = lambda number, kind, path: next(failures, None) if kind == "write" else None
    with pytest.raises(Unavailable, match="no"):
        log.append([b"failed" * 100, b"too"])
    assert read(disk) == [(1, b"before")]
    append(log, [b"after"])
    assert read(disk) == [(1, b"before"), (2, b"after")]


@pytest.mark.parametrize("thirds", range(3))
@pytest.mark.parametrize("payloads", [[b"failed" * 200], [b"failed", b"too" * 500]], ids=["one group", "two"])
def test_a_write_that_can_not_be_taken_back_is_of_unknown_outcome_if_a_group_is_whole(
    thirds: int, payloads: list[bytes]
) -> None:
    disk = disk_with_folder()
    log = log_of(disk)
    append(log, [b"before"])
    disk.operations = thirds + 2  # so that nothing is written, half of it, or nearly all
    before = bytes(file_of(disk, 1))
    disk.fault = lambda number, kind, path: DiskFull("no") if kind == "write" else None
    with pytest.raises((OutcomeUnknown, DiskFull)) as raised:
        log.append(payloads)
    written = sum(a != b for a, b in zip(before, file_of(disk, 1), strict=True))
    assert (written > 0) == (thirds > 0)
    whole = thirds > 0 and len(payloads) == 2
    assert isinstance(raised.value, OutcomeUnknown if whole else DiskFull)
    disk.fault = None
    if not whole:
        for seed in range(20):
            assert read(disk.after_cut(seed)) == [(1, b"before")]
        append(log, [b"after"])
        assert read(disk.after_cut(0, 0.0)) == [(1, b"before"), (2, b"after")]


@pytest.mark.parametrize("kind", ["open", "reserve", "write"])
def test_a_file_that_can_not_be_begun_is_begun_later(kind: str) -> None:
    disk = disk_with_folder()
    log = log_of(disk)

    def fault(number: int, what: str, path: str) -> TreestoreError | None:
        return DiskFull("full") if what == kind else None

    disk.fault = fault
    with pytest.raises(DiskFull):
        log.append([b"refused"])
    disk.fault = None
    append(log, [b"first"])
    assert read(disk) == [(1, b"first")]


def test_counting_the_logs_bytes_does_not_stumble_over_a_file_that_is_just_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disk_with_folder()
    log = log_of(disk)
    append(log, [b"one"])
    monkeypatch.setattr(wal, "log_numbers", lambda fs, folder: [1, 2])
    assert log.sizes() == [len(file_of(disk, 1))]


def test_a_header_alone_is_an_empty_file() -> None:
    disk = disk_with_folder()
    disk.open(f"{FOLDER}/{file_name(1)}", create=True).write(0, encode_log_header(STORE_ID, 1, 1))
    assert read(disk, newest=1) == []


def test_records_that_overlap_each_other_are_damage_and_take_bounded_time() -> None:
    """Thousands of headers that each claim the rest of the file: reading what they claim would take gigabytes."""

    def work(size: int) -> Callable[[], object]:
        disk = disk_with_folder()
        raw = bytearray(encode_log_header(STORE_ID, 1, 1).ljust(size, b"\0"))
        plain = encode_record(log_salt(STORE_ID, 1), 9, 9, b"")
        for at in range(LOG_START, len(raw) - RECORD_HEADER, RECORD_HEADER):
            length = len(raw) - at - RECORD_HEADER
            raw[at : at + RECORD_HEADER] = plain[:8] + length.to_bytes(4, "little") + plain[12:]
        disk.open(f"{FOLDER}/{file_name(1)}", create=True).write(0, raw)

        def told() -> None:
            with pytest.raises(Corrupted, match=r"0001\.log, byte \d+: records that overlap each other"):
                read(disk)

        return told

    assert grows_at_most(20, work, 1 << 17, 1 << 20)
