"""The write-ahead log: records in numbered files, appended in batches of which each is synced as a whole.

A record holds one whole group, so it is its own commit mark: it counts if its checksum fits. LSNs count records from 1
without gaps. Each record names the first LSN of its batch. A batch is written only after the batch before it was synced, so
at a record that does not fit, a later record that does tells what happened: where it belongs to a batch that began later,
something that had been synced is damaged; otherwise the bad record is the torn end of the last batch, never acknowledged.

A file is never appended to after its store was reopened; the next file's header says at which LSN it goes on. Files are
grown ahead of the writing, with zeros, and old ones are used again under a new number: the number is part of each checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from treestore.backends.btree.engine.file import File, FileSystem, SyncFailed, write_again
from treestore.backends.btree.engine.format import (
    LOG_HEADER,
    LOG_START,
    RECORD_HEADER,
    RecordHead,
    decode_log_header,
    decode_record,
    encode_log_header,
    encode_record,
    log_marker,
    log_salt,
)
from treestore.errors import Corrupted, OutcomeUnknown, TreestoreError

SPARE = "spare"  # the name of one old file that waits for use under a new number
_FILE_NAME = re.compile(r"[0-9]{20}\.log")
_MOST_NUMBER = 2**64 - 1
KEPT_FILES = 3  # the newest files are kept although a checkpoint holds what is in them
_FIRST_GROWTH = 64 * 1024
_MOST_GROWTH = 4 * 1024 * 1024
_MUCH = 8  # such a part of a file's size takes longer to search than a file to begin
_SEARCH = 4 * 1024 * 1024  # bytes read at once when looking for a later record


def file_name(number: int) -> str:
    """The name of a log file in its folder."""
    return f"{number:020d}.log"


def log_numbers(fs: FileSystem, folder: str) -> list[int]:
    """The numbers of the log files in a folder, ascending. What has another name than they have is none."""
    numbers = [int(name[:20]) for name in fs.list(folder) if _FILE_NAME.fullmatch(name)]
    return sorted(number for number in numbers if number <= _MOST_NUMBER)


class Log:
    """Appends to the log. Not thread-safe: one batch at a time."""

    def __init__(
        self, fs: FileSystem, folder: str, store_id: bytes, *, next_lsn: int, number: int, file_size: int, end: int = 0
    ) -> None:
        """``number`` is that of the last file begun; records go to a new one. ``file_size`` is the size in bytes at which
        the next file is begun, ``end`` the byte behind the last record in the file that has it (0: not known)."""
        self.next_lsn = next_lsn
        self.number = number
        self.bytes_written = 0
        self._fs = fs
        self._folder = folder
        self._store_id = store_id
        self._file_size = file_size
        self._file: File | None = None
        self._offset = end
        self._reserved = 0
        self._salt = 0

    def end(self, lsn: int) -> int:
        """The byte behind record ``lsn`` in the file that has it, if it is the last one; 0 if that is not known."""
        return self._offset if lsn + 1 == self.next_lsn else 0

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write a batch of records with the next LSNs; durable only after :meth:`sync`. Where it raises, nothing of the
        batch is in the log, unless the error says that this can't be known."""
        batch = self.next_lsn
        if self._file is None or self._offset >= self._file_size:
            self._next_file()
        assert self._file is not None
        raw = b"".join(encode_record(self._salt, batch + i, batch, payload) for i, payload in enumerate(payloads))
        self._grow(len(raw))
        try:
            self._file.write(self._offset, raw)
        except TreestoreError as error:
            self._erase(raw, len(encode_record(self._salt, batch, batch, payloads[0])), error)
            raise
        self._offset += len(raw)
        self.next_lsn += len(payloads)
        self.bytes_written += len(raw)

    def sync(self) -> None:
        """Make all that was appended durable."""
        if self._file is not None:
            self._file.sync()

    def _grow(self, length: int) -> None:
        """Have zeros in the file where the next records go, so that a sync need not write the file's metadata."""
        assert self._file is not None
        if self._offset + length <= self._reserved:
            return
        step = min(max(self._reserved, _FIRST_GROWTH), _MOST_GROWTH)
        wanted = self._offset + length + step
        self._file.reserve(self._reserved, wanted - self._reserved)
        self._file.write(self._reserved, bytes(wanted - self._reserved))
        self._reserved = wanted

    def _erase(self, raw: bytes, first: int, error: TreestoreError) -> None:
        """Records of groups that failed must not be found by a recovery. Where they can't be overwritten, as on a full disk
        that never writes in place, they will not be if the ``first`` bytes, the batch's first record, did not become whole;
        then no more goes into this file, and the next one's header says that its records end before them."""
        assert self._file is not None
        whole = True
        try:
            whole = self._file.read(self._offset, first) == raw[:first]
            self._file.write(self._offset, bytes(len(raw)))
            self._file.sync()
        except TreestoreError as second:
            if whole or isinstance(second, SyncFailed):
                raise OutcomeUnknown(f"a log record was written in part ({error}) and can't be taken back") from second
            self.close()

    def finish(self) -> None:
        """No record will follow: begin a next file, small and empty, if much of this one lies behind its records. The next
        opening would search all that for more of them, if no file said that they end here. If none can be begun, it does."""
        if self._file is not None and self._reserved - self._offset > self._file_size // _MUCH:
            with contextlib.suppress(TreestoreError):
                self._next_file(again=False)

    def _next_file(self, *, again: bool = True) -> None:
        number = self.number + 1
        path = os.path.join(self._folder, file_name(number))
        spare = os.path.join(self._folder, SPARE)
        if again and self._fs.exists(spare):
            self._fs.open(spare).close()  # if it is no file any more, it must not become the newest log file
            self._fs.sync_folder(self._folder)  # a file whose last change of name may be lost must not be given one more
            self._fs.rename(spare, path)
            self._fs.sync_folder(self._folder)  # or a cut could bring back its old name, with what is written to it now
        file = self._fs.open(path, create=True)
        try:
            size = file.size()
            if size < LOG_START:
                file.reserve(0, LOG_START)
                file.write(0, bytes(LOG_START))
                size = LOG_START
            file.write(0, encode_log_header(self._store_id, number, self.next_lsn))
            file.sync()
            self._fs.sync_folder(self._folder)
        except TreestoreError:
            file.close()
            raise
        self.close()
        self._file, self.number, self._offset, self._reserved = file, number, LOG_START, size
        self._salt = log_salt(self._store_id, number)

    def trim(self, lsn: int) -> None:
        """A checkpoint holds all records up to ``lsn``: remove files with no later record, but for the newest few. One is
        left to be used again."""
        numbers = log_numbers(self._fs, self._folder)
        starts = [_header(self._fs, self._folder, number) for number in numbers]
        spare = os.path.join(self._folder, SPARE)
        changed = False
        for number, following in zip(numbers[:-KEPT_FILES], starts[1:], strict=False):
            if following is None or following[2] > lsn + 1:
                break
            path = os.path.join(self._folder, file_name(number))
            if self._fs.exists(spare):
                self._fs.remove(path)
            else:
                self._fs.rename(path, spare)
            changed = True
        if changed:
            self._fs.sync_folder(self._folder)

    def sizes(self) -> list[int]:
        """The sizes in bytes of all log files. One that is retired at this moment is left out."""
        sizes = []
        for number in log_numbers(self._fs, self._folder):
            with contextlib.suppress(Corrupted):
                file = self._fs.open(os.path.join(self._folder, file_name(number)))
                sizes.append(file.size())
                file.close()
        return sizes

    def close(self) -> None:
        """Close the file; nothing is written."""
        if self._file is not None:
            self._file.close()
            self._file = None


# --- reading -------------------------------------------------------------------------------------------------------------


class LogFile(NamedTuple):
    """A log file: its number, the LSN of its first record and its path."""

    number: int
    start: int
    path: str


def _header(fs: FileSystem, folder: str, number: int) -> tuple[bytes, int, int] | None:
    file = fs.open(os.path.join(folder, file_name(number)))
    try:
        return decode_log_header(file.read(0, LOG_HEADER))
    finally:
        file.close()


class Record(NamedTuple):
    """A whole record: its LSN, its payload and the byte behind it in its file."""

    lsn: int
    payload: bytes
    end: int


def read_log(fs: FileSystem, folder: str, store_id: bytes, after: int, newest: int, end: int = 0) -> Iterator[Record]:
    """All whole records after LSN ``after``, in order, without gaps.

    ``newest`` is the number of a file that must be there (0: none), ``end`` the byte behind record ``after`` in the file that
    has it: what is before that is not read (0: not known, all of the file is). What was read is durable then: the header and
    the last batch of the newest file are written again, and it is synced. Raises Corrupted, naming file and byte, for anything
    but a torn end.
    """
    files = begun_files(fs, folder, store_id, newest)
    while len(files) > 1 and files[1].start <= after + 1:
        files.pop(0)
    if files and files[0].start > after + 1:
        raise Corrupted(f"the log is incomplete: records {after + 1} to {files[0].start - 1} are missing in {folder}")
    for i, log_file in enumerate(files):
        following = files[i + 1].start if i + 1 < len(files) else None
        begin = (log_file.start, LOG_START)
        if end and log_file.start <= after:  # then this file has that record; one that begins behind it has not
            begin = (after + 1, end)
        for record in _file_records(fs, store_id, log_file, following, *begin):
            if record.lsn > after:
                yield record


def begun_files(fs: FileSystem, folder: str, store_id: bytes, newest: int) -> list[LogFile]:
    """The log files that were begun, in order. One more may have been named but not begun when a crash came."""
    numbers = log_numbers(fs, folder)
    if newest and newest not in numbers:
        raise Corrupted(f"log file {os.path.join(folder, file_name(newest))} is missing")
    files = []
    for number in numbers:
        path = os.path.join(folder, file_name(number))
        header = _header(fs, folder, number)
        if header is None or header[1] != number:
            if number <= newest or number != numbers[-1] or _later_batch(fs, store_id, LogFile(number, 0, path), LOG_START, 0):
                raise Corrupted(f"log file {path}, byte 0: its header is damaged or another file's")
        elif header[0] != store_id:
            raise Corrupted(f"log file {path} belongs to another store")
        else:
            files.append(LogFile(number, header[2], path))
    return files


def _file_records(
    fs: FileSystem, store_id: bytes, log_file: LogFile, end: int | None, lsn: int, offset: int
) -> Iterator[Record]:
    """The records of one file from LSN ``lsn`` on, which is at ``offset`` and the first of its batch, up to LSN ``end``
    (exclusive) where the next file goes on, or else to the torn end."""
    salt = log_salt(store_id, log_file.number)
    file = fs.open(log_file.path)
    try:
        batch = offset
        while lsn != end:
            head, payload = record_at(file, salt, offset)
            if head is None or head.lsn != lsn or head.batch > lsn:
                if end is not None:
                    raise Corrupted(f"log file {log_file.path}, byte {offset}: record {lsn} is damaged")
                later = _later_batch(fs, store_id, log_file, offset, lsn)
                if later:
                    where = f"log file {log_file.path}, byte {offset}"
                    raise Corrupted(f"{where}: record {lsn} is damaged, and record {later} was synced after it")
                break
            yield Record(lsn, payload, offset + head.size)
            if head.batch == lsn:
                batch = offset
            lsn += 1
            offset += head.size
        if end is None:
            write_again(file, 0, LOG_HEADER)
            write_again(file, batch, offset - batch)
            file.sync()
    finally:
        file.close()


def record_at(file: File, salt: int, offset: int) -> tuple[RecordHead | None, bytes]:
    """The header and the payload of the whole record at an offset, if there is one."""
    head = decode_record(salt, file.read(offset, RECORD_HEADER))
    if head is None or offset + head.size > file.size() + 8:
        return None, b""
    payload = file.read(offset + RECORD_HEADER, head.length)
    return (head, payload) if head.fits(salt, payload) else (None, b"")


def _later_batch(fs: FileSystem, store_id: bytes, log_file: LogFile, offset: int, lsn: int) -> int:
    """The LSN of a whole record behind ``offset`` whose batch began after ``lsn``; 0 if there is none.

    Raises Corrupted where more bytes claim to be records than the file has: nothing that was ever written looks so.
    """
    file = fs.open(log_file.path)
    try:
        for _, head in whole_records(file, log_salt(store_id, log_file.number), offset, log_file.path):
            if head.batch > lsn:
                return head.lsn
    finally:
        file.close()
    return 0


def whole_records(file: File, salt: int, offset: int, path: str) -> Iterator[tuple[int, RecordHead]]:
    """The offsets and headers of all whole records of a file from ``offset`` on, whatever lies between them.

    Raises Corrupted where more bytes claim to be records than the file has: nothing that was ever written looks so.
    """
    marker = log_marker(salt)
    claimed, size = 0, file.size()
    while window := file.read(offset, _SEARCH):
        begin, at = offset, window.find(marker)
        while at >= 0:
            place = begin + at
            head = decode_record(salt, file.read(place, RECORD_HEADER))
            skip = 1
            if head is not None and place + head.size <= size + 8 and (place - LOG_START) % 8 == 0:
                claimed += head.size
                if claimed > 2 * size:
                    raise Corrupted(f"log file {path}, byte {place}: records that overlap each other")
                if record_at(file, salt, place)[0] is not None:
                    yield place, head
                    skip = head.size
            at = window.find(marker, at + skip)
            offset = max(offset, place + skip)
        if len(window) < _SEARCH:
            break
        offset = max(offset, begin + len(window) - len(marker) + 1)
