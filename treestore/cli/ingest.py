"""The verb that stores: PageIndex files in, versions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treestore.cli.options import Json, Store, parse_date, refuse, store_url
from treestore.cli.output import counted, printable, progress_bar, say, write, write_json
from treestore.errors import InvalidInput, NoStore, NotFound, TreestoreError

if TYPE_CHECKING:
    from treestore.pageindex import PageIndexDocument
    from treestore.records import StoreResult
    from treestore.store import SyncTreeStore

_SUFFIX = "_structure"  # what PageIndex appends to the name of the document


_KEPT = (
    "pdf_sha256",
    "markdown_ptr",
    "tree_json_ptr",
    "source_url",
    "revision_date",
    "tree_validated_by",
    "tree_validated_at",
    "metadata",
    "description",
    "created_by",
    "tags",
)
"""The columns of a version that stay as they are where no option gives them anew. So does the effective date."""


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
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="PageIndex JSON files.", show_default=False)],
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
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What this version is.")] = None,
    created_by: Annotated[str | None, typer.Option(metavar="NAME", help="Who made it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag; may be given several times.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An entry of metadata; may be given several times.")
    ] = None,
    searchable: Annotated[
        bool | None,
        typer.Option(
            "--searchable/--not-searchable", help="With keyword search (the default), or faster without", show_default=False
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Store PageIndex files.

    Each becomes a version of a policy. The store is made if it does not exist. A file that breaks a rule is named and changes
    nothing; the others are stored all the same. Says for each file whether it was created, replaced or unchanged. Of a
    version that is there already, what no option gives (its description, its tags...) stays as it is.
    """
    columns: dict[str, Any] = {
        "effective_date": effective_date,
        "source_url": source_url,
        "description": description,
        "created_by": created_by,
        "tags": tag or None,
        "metadata": _metadata(metadata or []),
        "searchable": searchable,
    }
    given = {name: value for name, value in columns.items() if value is not None}
    sources = _sources(files, policy)
    stored: list[dict[str, Any]] = []
    status = 0
    with progress_bar("storing", sum(source.size for source in sources)) as bar:
        for source, outcome in _outcomes(store_url(context, store), sources, version_id, given):
            with bar.after(source.size):
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
    url: str | None, sources: Sequence[_Source], version_id: str, given: dict[str, Any]
) -> Iterator[Outcome]:
    """Store one file after the other. Bad input ends that file, any other error of the store ends all."""
    import treestore

    with ExitStack() as stack:
        target = None
        with suppress(NoStore):
            target = stack.enter_context(treestore.open_sync(url, create=False))
        for source in sources:
            try:
                document = treestore.pageindex.read(source.path)
                if target is None:
                    target = stack.enter_context(_made(url, source, version_id, document, given))
                yield source, _store(target, source, version_id, document, given)
            except TreestoreError as error:
                if target is None and not isinstance(error, InvalidInput):
                    raise  # the store's fault, not the file's
                yield source, error
                if not isinstance(error, InvalidInput):
                    return


def _made(
    url: str | None, source: _Source, version_id: str, document: PageIndexDocument, given: dict[str, Any]
) -> SyncTreeStore:
    """A new store. It is made once a store in memory has accepted the first document: input that breaks a rule leaves
    nothing behind."""
    import treestore

    with treestore.open_sync("memory://") as rehearsal:
        _store(rehearsal, source, version_id, document, {**given, "searchable": False})
    return treestore.open_sync(url)


def _store(
    target: SyncTreeStore, source: _Source, version_id: str, document: PageIndexDocument, given: dict[str, Any]
) -> StoreResult:
    columns: dict[str, Any] = {}
    doc_id = document.doc_id
    with suppress(NotFound):
        before = target.versions.get(source.policy_id, version_id)
        columns = {name: getattr(before, name) for name in _KEPT}
        columns["searchable"] = bool(before.analyzer)
        if not (before.pageindex and before.pageindex.fields.get("id")):  # else it came with the file that is replaced
            doc_id = doc_id or before.pageindex_doc_id
    return target.documents.store_document(
        source.policy_id,
        version_id,
        document.nodes,
        pageindex_doc_id=doc_id,
        pages=document.pages,
        pageindex=document.envelope,
        **{**columns, **given},
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
    pages = f", {counted(result.page_count, 'pages')}" if result.page_count else ""
    counts = counted(result.node_count, "nodes") + pages
    name = f"{printable(result.policy_id)} {printable(result.version_id)}"
    return f"{result.outcome:9}  {name}  {counts}  {printable(str(source.path))}\n"
