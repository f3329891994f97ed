"""The verbs that read trees: what documents there are, their nodes by structure, and their export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from treestore.cli.options import Json, NodeId, OptionalNodeId, Policy, Store, VersionId, opened, refuse
from treestore.cli.output import (
    moment,
    place_of,
    printable_text,
    write,
    write_fields,
    write_file,
    write_json,
    write_json_text,
    write_table,
    write_tree,
)
from treestore.records import Node, Outline
from treestore.trees.rules import MAX_INTEGER, MAX_RESULTS, shown_path


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    for verb in (documents, tree, node, children, ancestors, export):
        app.command()(verb)


def documents(
    context: typer.Context,
    after: Annotated[str | None, typer.Option(metavar="POLICY", help="Only policies after this one.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, max=MAX_RESULTS, help="At most so many.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List policies and the versions in effect.

    Where none is in effect yet, it is the latest.
    """
    with opened(context, store) as target:
        found = target.documents.list_documents(after=after, limit=limit)
    if as_json:
        write_json(found)
        return
    rows = [
        (
            entry.policy_id,
            entry.version.version_id,
            moment(entry.version.effective_date),
            moment(entry.version.ingested_at),
            str(entry.version_count),
            str(entry.version.node_count),
            entry.version.description,
        )
        for entry in found
    ]
    headings = ("POLICY", "VERSION", "EFFECTIVE", "INGESTED", "VERSIONS", "NODES", "DESCRIPTION")
    write_table(headings, rows, shorten=(6, 3, 2, 0, 1))


def tree(
    context: typer.Context,
    policy: Policy,
    node_id: OptionalNodeId = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=MAX_INTEGER, help="Levels to show below the node, or below the roots; 0: it alone."
        ),
    ] = None,
    version: VersionId = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show a tree or a subtree, as an outline.

    The nodes come in document order.
    """
    with opened(context, store) as target:
        found = target.documents.get_outline(policy, node_id, depth, version_id=version)
    if as_json:
        write_json(found)
    else:
        write_tree(found, found[0].depth if found else 0)


def node(
    context: typer.Context,
    policy: Policy,
    node_id: NodeId,
    version: VersionId = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show one node, whole."""
    with opened(context, store) as target:
        found = target.documents.get_node(policy, node_id, version_id=version)
    if as_json:
        write_json(found)
        return
    write_fields(_fields(found))
    if found.text is not None:
        write(f"\n{printable_text(found.text).rstrip()}\n")


def _fields(found: Node) -> list[tuple[str, str]]:
    fields = [
        ("node", found.node_id),
        ("title", found.title),
        ("policy", found.policy_id),
        ("version", found.version_id),
        ("parent", found.parent_id),
        ("section", found.section_path),
        ("place", place_of(found)),
        ("depth", str(found.depth)),
        ("below", str(found.last_ordinal - found.ordinal)),
        ("status", found.validation_status),
        ("summary", found.summary),
        ("prefix summary", found.prefix_summary),
        ("metadata", _json(found.metadata)),
        ("other keys", _json(found.extra)),
        ("amended", None if found.updated_at is None else moment(found.updated_at)),
        ("tree hash", found.tree_hash.hex()),
    ]
    return [(name, value) for name, value in fields if value]


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def children(
    context: typer.Context,
    policy: Policy,
    node_id: OptionalNodeId = None,
    version: VersionId = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the children of a node, or the roots."""
    with opened(context, store) as target:
        found = target.documents.get_children(policy, node_id, version_id=version)
    _list_nodes(found, as_json)


def ancestors(
    context: typer.Context,
    policy: Policy,
    node_id: NodeId,
    version: VersionId = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the way from the root to a node."""
    with opened(context, store) as target:
        found = target.documents.get_ancestor_path(policy, node_id, version_id=version)
    _list_nodes(found, as_json)


def _list_nodes(found: list[Node], as_json: bool) -> None:
    if as_json:
        write_json(found)
        return
    rows = [(entry.node_id, entry.section_path, place_of(entry), _below(entry), entry.title) for entry in found]
    write_table(("NODE", "SECTION", "PLACE", "BELOW", "TITLE"), rows, shorten=(4, 1, 0))


def _below(entry: Outline) -> str:
    return str(entry.last_ordinal - entry.ordinal)


def export(
    context: typer.Context,
    policy: Policy,
    version: VersionId = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")] = None,
    store: Store = None,
    _as_json: Annotated[bool, typer.Option("--json", help="Changes nothing: an export is JSON.")] = False,
) -> None:
    """Print a version as PageIndex JSON.

    A version that came from a file is written as that file was.
    """
    from treestore import pageindex

    with opened(context, store) as target:
        if output is not None and target.holds(output):
            refuse(f"--output {shown_path(str(output))}: lies in the folder of the store; name another place", status=2)
        document = target.documents.get_document(policy, version_id=version)
    text = pageindex.dumps(document) + "\n"
    if output is None:
        write_json_text(text)
    else:
        write_file(output, text)
