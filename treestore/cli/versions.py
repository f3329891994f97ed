"""The verbs on versions: list them, find the one in effect, delete."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
import typer

from treestore.cli.options import Json, Policy, Store, opened, parse_date, refuse
from treestore.cli.output import counted, moment, plain, printable, say, write, write_json, write_table
from treestore.records import Version
from treestore.trees import rules, timeline


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
    """List versions, or the one on a date.

    Of a policy: all its versions, or the one in effect on the date of --as-of. A list begins with the oldest ingestion. With
    --known-at, EFFECTIVE and INGESTED are what was known then; the rest of a version is as it is now, and --json says both:
    what was known then, under "known". A deleted version is never in effect.
    """
    if as_of is None and known_at is None:
        with opened(context, store) as target:
            found = target.versions.list(policy, include_deleted=deleted)
        answer: object = found
    else:
        if deleted:
            refuse("--deleted is for listing; a deleted version is never in effect (no --as-of, no --known-at)", status=2)
        at = datetime.now(UTC) if as_of is None else as_of
        with opened(context, store) as target:
            version = target.versions.get_version_as_of(policy, at, known_at)
        answer, shown = _as_known(version, known_at)
        found = [shown]
    if as_json:
        write_json(answer)
        return
    headings = ("VERSION", "EFFECTIVE", "INGESTED", "NODES", "PAGES", "DESCRIPTION")
    write_table(headings, [_row(version) for version in found], shorten=(5, 2, 1, 0))


def _as_known(version: Version, known_at: date | None) -> tuple[object, Version]:
    """A version for JSON, and for the table with the dates that were known at ``known_at``."""
    moment_known = None if known_at is None else rules.as_question_time(known_at, "known_at")
    then = timeline.known(version, moment_known)
    if moment_known is None or then is None:
        return version, version
    answer = {**plain(version), "known": {"known_at": moment_known, **then._asdict()}}
    return answer, msgspec.structs.replace(version, **then._asdict())


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
    """Delete a version of a policy, or all.

    The facts about them stay as tombstones.
    """
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
        write(f"deleted    {printable(result.policy_id)} {ids}  {counted(result.node_count, 'nodes')}\n")


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        refuse(f"would delete {what}; say --yes to do it", status=2)
    if not typer.confirm(f"Delete {what}?", err=True):
        say("nothing was deleted")
        raise typer.Exit(1)
