"""The verb that stores: PageIndex files in, versions out."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treestore.cli.options import Json, Store, parse_date, refuse, store_url
from treestore.cli.output import printable, say, write, write_json
from treestore.errors import InvalidInput, NotAStore, TreestoreError

if TYPE_CHECKING:
    from treestore.pageindex import PageIndexDocument
    from treestore.records import StoreResult
    from treestore.repositories.plan import SyncDriver
    from treestore.store import TreeStore

_SUFFIX = "_structure"  # what PageIndex appends to the name of the document


@dataclass(frozen=True)
class _Source:
    """One file, the policy that it is stored as, and its size in bytes (0 if that is unknown)."""

    path: Path
    policy_id: str
    size: int


Outcome = tuple[_Source, "StoreResult | TreestoreError"]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PageIndex JSON files.", show_default=False)],
    policy: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Id of the policy. Without it: the file's name, less .json and _structure."),
    ] = None,
    version_id: Annotated[str, typer.Option("--version", metavar="ID", help="Id of the version.")] = "1",
    effective_date: Annotated[
        date | None,
        typer.Option(parser=parse_date, metavar="DATE", help="From when the version is in effect (ISO date or time, UTC)."),
    ] = None,
    source_url: Annotated[str | None, typer.Option(metavar="URL", help="Where the document comes from.")] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What this version is.", show_default=False)] = "",
    created_by: Annotated[str, typer.Option(metavar="NAME", help="Who made it.", show_default=False)] = "",
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag; may be given several times.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An entry of metadata; may be given several times.")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Store PageIndex files, each as one version of a policy; the store is made if it does not exist.

    A file that breaks a rule is named and changes nothing; the others are stored all the same. Says for each file whether
    it was created, replaced or unchanged.
    """
    columns: dict[str, Any] = {
        "version_id": version_id,
        "effective_date": effective_date,
        "source_url": source_url,
        "description": description,
        "created_by": created_by,
        "tags": tuple(tag or ()),
        "metadata": _metadata(metadata or []),
    }
    sources = _sources(files, policy)
    stored: list[dict[str, Any]] = []
    status = 0
    with _bar(sum(source.size for source in sources)) as bar:
        for source, outcome in _outcomes(context, store, sources, columns):
            with bar.after(source):
                if isinstance(outcome, TreestoreError):
                    say(_named(source.path, outcome))
                    status = 2 if isinstance(outcome, InvalidInput) else 1
                elif not as_json:
                    write(_line(source, outcome))
            if not isinstance(outcome, TreestoreError):
                stored.append({"file": str(source.path), "stored": outcome})
    if as_json:
        write_json(stored)
    if status:
        raise typer.Exit(status)


def _outcomes(
    context: typer.Context, store: str | None, sources: Sequence[_Source], columns: dict[str, Any]
) -> Iterator[Outcome]:
    """Store one file after the other. Bad input ends that file, any other error of the store ends all."""
    from treestore import pageindex

    with ExitStack() as stack:
        target = None
        for source in sources:
            try:
                document = pageindex.read(source.path)
                if target is None:  # only now: input that can't be read makes no store
                    target = stack.enter_context(_opened(store_url(context, store), source, document, columns))
                yield source, _store(target, source, document, columns)
            except TreestoreError as error:
                if target is None and not isinstance(error, InvalidInput):
                    raise  # the store's fault, not the file's
                yield source, error
                if not isinstance(error, InvalidInput):
                    return


def _opened(
    url: str | None, source: _Source, document: PageIndexDocument, columns: dict[str, Any]
) -> TreeStore[SyncDriver]:
    """The store, open. Where there is none yet it is made, once a store in memory has accepted the first document: input
    that breaks a rule leaves nothing behind."""
    import treestore

    try:
        return treestore.open_sync(url, create=False)
    except NotAStore:
        with treestore.open_sync("memory://") as rehearsal:
            _store(rehearsal, source, document, columns)
        return treestore.open_sync(url)


def _store(
    target: TreeStore[SyncDriver], source: _Source, document: PageIndexDocument, columns: dict[str, Any]
) -> StoreResult:
    return target.documents.store_document(
        source.policy_id,
        nodes=document.nodes,
        pageindex_doc_id=document.doc_id,
        pages=document.pages,
        pageindex=document.envelope,
        **columns,
    )


def _sources(files: Sequence[Path], policy: str | None) -> list[_Source]:
    """The files with their policies. One policy for several files would keep only the last of them: refused."""
    sources: dict[str, _Source] = {}
    for path in files:
        policy_id = path.name.removesuffix(".json").removesuffix(_SUFFIX) if policy is None else policy
        if policy_id in sources:
            other = sources[policy_id].path
            refuse(f"{other} and {path} would both be stored as policy {policy_id!r}; ingest them one by one", status=2)
        try:
            size = path.stat().st_size
        except (OSError, ValueError):
            size = 0  # reading it says what is wrong
        sources[policy_id] = _Source(path, policy_id, size)
    return list(sources.values())


def _metadata(entries: Sequence[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key or key in found:
            refuse(f"--metadata {entry[:60]!r}: must be KEY=VALUE, each key once", status=2)
        found[key] = value
    return found or None


def _named(path: Path, error: TreestoreError) -> str:
    """The error with the name of the file, which errors of reading say themselves."""
    from treestore.trees.rules import shown_path

    name, text = shown_path(str(path)), str(error)
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


def _line(source: _Source, result: StoreResult) -> str:
    counts = f"{result.node_count} nodes" + (f", {result.page_count} pages" if result.page_count else "")
    name = f"{printable(result.policy_id)} {printable(result.version_id)}"
    return f"{result.outcome:9}  {name}  {counts}  {printable(str(source.path))}\n"


class _Bar:
    """Progress in bytes of files on a terminal's stderr; without a terminal there is none."""

    def __init__(self, progress: Any, total: int) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("storing", total=total)

    @contextmanager
    def after(self, source: _Source) -> Generator[None]:
        """Count the source as done; what is printed inside does not mix with the bar."""
        if self._progress is None:
            yield
            return
        self._progress.advance(self._task, source.size)
        self._progress.stop()
        yield
        self._progress.start()


@contextmanager
def _bar(total: int) -> Generator[_Bar]:
    if not sys.stderr.isatty():
        yield _Bar(None, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), "[progress.description]{task.description}", BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield _Bar(progress, total)
