"""The verbs on versions: list them, find the one in effect, delete."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from treestore.cli.options import Json, Policy, Store, opened, parse_date, refuse
from treestore.cli.output import moment, printable, say, write, write_json, write_table
from treestore.records import Version


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(versions)
    app.command()(delete)


def versions(
    context: typer.Context,
    policy: Policy,
    as_of: Annotated[
        date | None,
        typer.Option(parser=parse_date, metavar="DATE", help="Only the version in effect then (a date: at its end, UTC)."),
    ] = None,
    known_at: Annotated[
        date | None,
        typer.Option(
            parser=parse_date,
            metavar="DATE",
            help="Only the version in effect (now, or --as-of) by what had been recorded then.",
        ),
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="List deleted versions too.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the versions of a policy, oldest ingestion first, or show the one in effect on a date."""
    with opened(context, store) as target:
        if as_of is None and known_at is None:
            found = target.versions.list(policy, include_deleted=deleted)
            answer: object = found
        else:
            at = datetime.now(UTC) if as_of is None else as_of
            found = [target.versions.get_version_as_of(policy, at, known_at)]
            answer = found[0]
    if as_json:
        write_json(answer)
        return
    headings = ("VERSION", "EFFECTIVE", "INGESTED", "NODES", "PAGES", "DESCRIPTION")
    write_table(headings, [_row(version) for version in found], shorten=5)


def _row(version: Version) -> tuple[str, ...]:
    deleted = "" if version.deleted_at is None else f"(deleted {moment(version.deleted_at)}) "
    return (
        version.version_id,
        moment(version.effective_date),
        moment(version.ingested_at),
        str(version.node_count),
        str(version.page_count),
        deleted + version.description,
    )


def delete(
    context: typer.Context,
    policy: Policy,
    version: Annotated[
        str | None, typer.Option("--version", metavar="ID", help="Delete this version only.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Delete one version of a policy, or the policy with all its versions. The facts about them stay as tombstones."""
    what = f"policy {policy!r} with all its versions" if version is None else f"policy {policy!r} version {version!r}"
    if not yes:
        _confirm(what)
    with opened(context, store) as target:
        if version is None:
            result = target.documents.delete_document(policy)
        else:
            result = target.documents.delete_version(policy, version)
    if as_json:
        write_json(result)
    else:
        ids = ", ".join(map(printable, result.version_ids))
        write(f"deleted    {printable(result.policy_id)} {ids}  {result.node_count} nodes\n")


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        refuse(f"would delete {what}; say --yes to do it", status=2)
    if not typer.confirm(f"Delete {what}?", err=True):
        say("nothing was deleted")
        raise typer.Exit(1)
