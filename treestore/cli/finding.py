"""The verbs that find nodes: by words, and by pages."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from treestore.cli.options import Json, Policy, Store, VersionId, opened, refuse
from treestore.cli.output import Segment, place_of, printable, say, write_json, write_styled, write_tree
from treestore.trees.rules import MAX_RESULTS

if TYPE_CHECKING:
    from treestore.records import Node, SearchHit
    from treestore.search.snippet import Snippet

_INDENT = 4  # columns before an excerpt
_WIDEST = 100  # columns of a line of an excerpt: a longer one is hard to read
_LINES = 2
_RAGGED = 5  # columns that stay free at the end of a line, since words are not cut
_FOUND = "bold red"
_QUIET = "bright_black"


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(search)
    app.command()(page)


def search(
    context: typer.Context,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="Id of the policy; with --all, the first word.", show_default=False)
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORDS", help="What to look for. A word that begins with - goes after --.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_RESULTS, help="At most so many nodes.")] = 10,
    version: VersionId = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="No POLICY: search the versions in effect of all policies.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find nodes by words, the best first.

    Any of the words may match, in any form ("therapies" finds "therapy"). The number behind a node is its score: it orders the
    nodes of one search. Finding nothing is no error: it is said on stderr, and the status is 0.
    """
    query = " ".join([policy, *(words or [])] if everywhere else words or [])
    if not words and not everywhere:
        refuse("no words to look for: treestore search POLICY WORDS, or treestore search --all WORDS", status=2)
    if everywhere and version is not None:
        refuse("--version goes with a policy; --all searches the versions in effect", status=2)
    with opened(context, store) as target:
        if everywhere:
            hits = target.documents.search_documents(query, limit=limit)
        else:
            hits = target.documents.search_nodes(policy, query, limit=limit, version_id=version)
    if as_json:
        write_json(hits)
    elif hits:
        write_styled([line for hit in hits for line in _shown(hit, query, everywhere)], hanging=_INDENT)
    else:
        from treestore.search import analyzer

        where = "" if everywhere else f" in policy {policy!r}"
        why = "" if analyzer.terms(query) else ": it has no word that says something"
        say(f"nothing was found for {query[:60]!r}{where}{why}")


def _shown(hit: SearchHit, query: str, with_policy: bool) -> list[list[Segment]]:
    """A line on the node and one of the place in it that matches best."""
    from treestore.search.snippet import snippet

    node, place = hit.node, place_of(hit.node)
    head: list[Segment] = [(printable(node.policy_id), "bold"), ("  ", "")] if with_policy else []
    head += [(printable(node.node_id), "cyan"), ("  ", ""), *_marked(snippet(node.title, query, width=None))]
    head.append(((f"  [{place}]" if place else "") + f"  {hit.score:.2f}", _QUIET))
    excerpt = _fitting(node, query)
    return [head, [(" " * _INDENT, ""), *_marked(excerpt)]] if excerpt.text else [head]


def _fitting(node: Node, query: str) -> Snippet:
    """The place in a node that matches best, as much as goes on two lines."""
    from treestore.search.snippet import best_snippet

    terminal = sys.stdout.isatty()
    columns = min(shutil.get_terminal_size().columns, _WIDEST) if terminal else _WIDEST
    room = max(_LINES * (columns - _INDENT - _RAGGED), 40)
    excerpt = best_snippet(node, query, width=room)
    if terminal:
        from rich.cells import cell_len

        columns = cell_len(excerpt.text)
        if columns > room:  # wide characters
            excerpt = best_snippet(node, query, width=max(room * len(excerpt.text) // columns, 20))
    return excerpt


def _marked(excerpt: Snippet) -> list[Segment]:
    """The text in pieces, those that match in the colour of a match."""
    pieces: list[Segment] = []
    end = 0
    for start, until in excerpt.marks:
        pieces += [(printable(excerpt.text[end:start]), ""), (printable(excerpt.text[start:until]), _FOUND)]
        end = until
    return [*pieces, (printable(excerpt.text[end:]), "")]


def page(
    context: typer.Context,
    policy: Policy,
    first: Annotated[int, typer.Argument(metavar="PAGE", help="The page, or the first of several.", show_default=False)],
    last: Annotated[
        int | None, typer.Argument(metavar="[LAST]", help="The last page, of several.", show_default=False)
    ] = None,
    version: VersionId = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the nodes on a page, or on some pages.

    The nodes come in document order. That none lies there is no error: it is said on stderr, and the status is 0.
    """
    with opened(context, store) as target:
        if last is None:
            found = target.documents.get_nodes_by_page(policy, first, version_id=version)
        else:
            found = target.documents.get_nodes_by_pages(policy, first, last, version_id=version)
    if as_json:
        write_json(found)
    elif found:
        write_tree(found, min(node.depth for node in found))
    else:
        pages = f"page {first}" if last is None else f"pages {first} to {last}"
        say(f"no node of policy {policy!r} lies on {pages}")
