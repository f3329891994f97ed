"""How records are shown: aligned text for a reader, or JSON alone for a program.

The text is the same in a terminal and in a pipe, but for colours and for what a terminal is too narrow for, which it shows
shortened: titles and descriptions first. In a pipe nothing is shortened. What could steer a terminal (control characters,
overrides of the direction of writing) is escaped, since stored texts come from anywhere.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

if TYPE_CHECKING:
    from rich.progress import Progress

STYLED_LINES = 2000
"""Colouring a line takes a tenth of a millisecond; from so many lines on they are written plain."""

BROKEN_PIPE = 128 + 13
"""The status of a command whose reader went away, as the shell reports one that SIGPIPE ended."""

_STEERING = r"\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_UNSAFE = re.compile(rf"[\x00-\x1f\ud800-\udfff{_STEERING}]")
_UNSAFE_IN_TEXT = re.compile(rf"[\x00-\x08\x0b-\x1f\ud800-\udfff{_STEERING}]")
_UNSAFE_IN_JSON = re.compile(rf"[{_STEERING}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")

Row = Sequence[str]
Segment = tuple[str, str]
"""A piece of a line that is printable already, and its style on a terminal."""


class OutputFailed(Exception):
    """A result can't be written. The message says where to, and why."""


def printable(text: str) -> str:
    """The text on one line, every character that could steer a terminal escaped."""
    return _UNSAFE.sub(_escaped, text)


def printable_text(text: str) -> str:
    """The text with its lines and tabs, every other character that could steer a terminal escaped."""
    return _UNSAFE_IN_TEXT.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def moment(value: datetime | None) -> str:
    """A time as text: the day alone where it is the start of one, else to the second. "-" for none."""
    if value is None:
        return "-"
    if value.time() == time():
        return value.date().isoformat()
    return value.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds") + "Z"


def counted(count: int, name: str) -> str:
    """A number of things that are named in the plural, with underscores: "1 node", "20 leaf pages" for ``pages_leaf``."""
    things, _, kind = name.partition("_")
    text = f"{kind} {things}" if kind and things.endswith("s") else name.replace("_", " ")
    return f"{count} {text.removesuffix('s') if count == 1 else text}"


# --- where it goes -------------------------------------------------------------------------------------------------------


def write(text: str) -> None:
    """Write to stdout at once, so that a line that was seen is true. Ends quietly if nobody reads any more.

    Raises OutputFailed.
    """
    try:
        sys.stdout.flush()
        # Not by the text layer: under PYTHONUNBUFFERED it takes a part that was written (the disk is full, the reader has
        # gone) for the whole, and the rest would be lost without an error.
        rest = memoryview(text.encode(sys.stdout.encoding, sys.stdout.errors or "strict"))
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(BROKEN_PIPE) from None
        raise OutputFailed(f"cannot write to standard output: {error.strerror}") from error


def abandon_stdout() -> None:
    """Nothing can be written there any more; what Python still flushes at exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_file(path: Path, text: str) -> None:
    """Write a file as UTF-8: whole, or (if that fails) not at all. What is no file (a pipe, a device) is written to as it is.

    Raises OutputFailed.
    """
    content = text.encode()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(os.path.realpath(path), content)
    except (OSError, ValueError) as error:
        from treestore.trees.rules import shown_path

        reason = error.strerror if isinstance(error, OSError) else None
        raise OutputFailed(f"cannot write {shown_path(str(path))}: {reason or error}") from error


def _replace(path: str, content: bytes) -> None:
    """Put a file in the place of the one at ``path``, with its permissions, once all of it is on the disk."""
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".treestore-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.path.exists(path):
                os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def say(message: str) -> None:
    """One line to stderr."""
    sys.stderr.write(f"treestore: {printable(message)}\n")
    sys.stderr.flush()


# --- JSON ----------------------------------------------------------------------------------------------------------------


class Bar:
    """How far something is, of a total."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def advance(self, by: int) -> None:
        """So much more is done."""
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], by)

    @contextmanager
    def after(self, by: int) -> Generator[None]:
        """So much more is done; what is printed inside does not mix with the bar."""
        self.advance(by)
        if self._progress is not None:
            self._progress.stop()
        yield
        if self._progress is not None:
            self._progress.start()


@contextmanager
def progress_bar(what: str, total: int) -> Generator[Bar]:
    """Progress on a terminal's stderr; without a terminal there is none."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "[progress.description]{task.description}", BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        progress.add_task(what, total=total)
        yield Bar(progress)


def write_json(value: object) -> None:
    """Records (or lists of them) as one JSON document: objects by field, bytes in hex, times in ISO 8601."""
    encoded = msgspec.json.format(msgspec.json.encode(plain(value)), indent=2)
    write_json_text(encoded.decode() + "\n")


def write_json_text(text: str) -> None:
    """JSON that is text already. What could steer a terminal can only stand inside a string, so it is escaped there."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    write((_UNSAFE_IN_JSON if encoding == "utf8" else _NOT_ASCII).sub(_json_escaped, text))


def _json_escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def plain(value: object) -> Any:
    """Records as dicts, which their JSON is made of. It goes only as deep as records hold records (a listing, a version, its
    facts)."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple) and value and isinstance(value[0], msgspec.Struct | dict):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: plain(entry) if isinstance(entry, msgspec.Struct | bytes) else entry for key, entry in value.items()}
    return value


# --- text ----------------------------------------------------------------------------------------------------------------


def write_table(headings: Row, rows: Iterable[Row], *, shorten: Sequence[int] = ()) -> None:
    """Aligned columns, the first in colour. Where a terminal is too narrow, the columns of ``shorten`` give way, in this
    order, each down to its heading or a day's length; then the line is cut. A row is always one line."""
    from rich.cells import cell_len

    cells = [[printable(cell) for cell in row] for row in [headings, *rows]]
    columns = range(len(headings))
    widths = [max(cell_len(row[i]) for row in cells) for i in columns]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if room is not None:
        for i in shorten:
            excess = sum(widths) + len(_GAP) * (len(headings) - 1) - room
            least = max(len(headings[i]), _LEAST_WIDTH)
            widths[i] = min(widths[i], max(widths[i] - max(excess, 0), least))
    lines = []
    for row in cells:
        fitted = [_fitted(row[i], widths[i]) for i in columns]
        first, *rest = [cell + " " * (widths[i] - cell_len(cell)) for i, cell in enumerate(fitted)]
        line = "".join(_GAP + cell for cell in rest)
        lines.append((first, line if room is None else _fitted(line.rstrip(), max(room - widths[0], 1))))
    write_lines(lines, ["bold", *["cyan"] * (len(lines) - 1)])


_GAP = "  "
_LEAST_WIDTH = 11  # of a column that gives way: a day and the sign that its time was cut off


def _fitted(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def write_tree(nodes: Sequence[Any], first_depth: int) -> None:
    """Nodes in document order, one line each, indented by their level below ``first_depth``."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for node in nodes:
        start = "  " * (node.depth - first_depth) + printable(node.node_id)
        title, place = printable(node.title), place_of(node)
        if width is not None:
            title = _fitted(title, max(width - len(start) - len(place) - 6, 20))
        lines.append((start, "  " + title + (f"  [{place}]" if place else "")))
    write_lines(lines, ["cyan"] * len(lines))


def place_of(node: Any) -> str:
    """Where in its source a node stands, as text: pages or a line; empty if it does not say."""
    return pages_of(node) or ("" if node.line_num is None else f"line {node.line_num}")


def pages_of(node: Any) -> str:
    """The pages of a node as text; empty if it does not say."""
    if node.page_start is None:
        return ""
    return f"page {node.page_start}" if node.page_start == node.page_end else f"pages {node.page_start}-{node.page_end}"


def write_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one per line, aligned."""
    shown = [(name, printable(value)) for name, value in fields]
    width = max((len(name) for name, _ in shown), default=0)
    write_lines([(name.ljust(width), f"  {value}") for name, value in shown], ["bold"] * len(shown))


def write_lines(lines: Sequence[tuple[str, str]], styles: Sequence[str]) -> None:
    """Lines of two parts, of which the first is styled on a terminal. The parts are printable already."""
    write_styled([[(start, style), (rest.rstrip(), "")] for (start, rest), style in zip(lines, styles, strict=True)])


def write_styled(lines: Sequence[Sequence[Segment]], *, hanging: int | None = None) -> None:
    """Lines of segments (printable text, style), styled on a terminal.

    With ``hanging``, a line that is wider than the terminal goes on in the next, at a space that is not inside of short
    brackets ("[pages 9-14]"), indented by so many columns.
    """
    if not sys.stdout.isatty() or len(lines) > STYLED_LINES:
        write("".join(f"{''.join(text for text, _ in line).rstrip()}\n" for line in lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    room = shutil.get_terminal_size().columns
    with console.capture() as captured:
        for line in lines:
            text = Text.assemble(*line)
            first, *rest = text.divide([] if hanging is None else _breaks(text.plain, max(room - hanging, 10)))
            first.rstrip()
            console.print(first)
            for part in rest:
                part.rstrip()
                console.print(Text(" " * (hanging or 0)).append_text(part))
    write(captured.get())


_UNBROKEN = re.compile(r"\s*(?:\[[^\[\]]{1,32}\]|\S)+\s*")


def _breaks(line: str, room: int) -> list[int]:
    """Where a line is broken so that no part is wider than ``room`` columns: between words, inside of one that is wider."""
    from rich.cells import cell_len, chop_cells

    breaks: list[int] = []
    column = 0
    for word in _UNBROKEN.finditer(line):
        if column and column + cell_len(word[0].rstrip()) > room:
            breaks.append(word.start())
            column = 0
        place = word.start()
        for part in chop_cells(word[0].rstrip(), room)[:-1]:
            place += len(part)
            breaks.append(place)
            column = 0
        column += cell_len(line[place : word.end()])
    return breaks
