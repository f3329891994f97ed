"""PageIndex JSON to nodes and back, without loss.

PageIndex writes a document's tree in one of three shapes, told apart by the document's keys:

- pdf: ``doc_name``, ``doc_description``?, ``structure``; nodes with ``start_index`` and ``end_index``;
- markdown: the same with ``line_count``; nodes with ``line_num``;
- workspace: ``id``, ``type``, ``path``, … ``structure`` and, for a PDF, ``pages`` (a list of ``{page, content}``).

What is read can be stored by ``documents.store_document(policy_id, version_id, document.nodes, pages=document.pages,
pageindex=document.envelope, pageindex_doc_id=document.doc_id)``, and what was stored so is written back equal: the same
keys, the same order of nodes, unknown keys kept, absent kept apart from ``null`` and from empty. The order of keys is
written back too, as far as one order fits all nodes. After an amendment the amended values are written.

Only the keys above become fields. All others, whatever their names, go to ``extra`` (of the node or page) or to
``Envelope.fields``; so does a known key whose value is ``null``. What treestore knows of a node beyond PageIndex's keys
(metadata, validation status, section path) is not written.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from treestore.catalog import VERSIONS
from treestore.errors import InvalidInput
from treestore.records import Document, Envelope, Node, PageText, Shape
from treestore.trees.given import check_pages, given_node
from treestore.trees.rules import (
    MAX_DEPTH,
    MAX_JSON_DEPTH,
    MAX_NODES,
    check_integer,
    check_json_object,
    check_text,
    shorten,
    shown,
    shown_key,
    shown_path,
)

_FIELDS: Final = frozenset({"title", "node_id", "start_index", "end_index", "line_num", "summary", "prefix_summary", "text"})
_TEXTS: Final = ("doc_name", "doc_description", "id", "type", "path")
_NUMBERS: Final = ("line_count", "page_count")
_NODE_KEYS: Final = ("title", "node_id", "start_index", "end_index", "line_num", "summary", "prefix_summary", "text", "nodes")
_PAGE_KEYS: Final = ("page", "content")

Json = dict[str, Any]

_TOKENS: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN|[\[\]{}]', re.DOTALL)
"""Of JSON: brackets and the constants that JSON does not have, and strings, so that what is inside of them is passed over."""

_MAX_LEVELS: Final = 2 * MAX_DEPTH + MAX_JSON_DEPTH + 2  # an object and a list for each level of the tree, and a deep value


class PageIndexDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A PageIndex document, checked and ready to be stored.

    ``nodes`` are nested mappings in the order of the file, as :func:`treestore.trees.derive.derive` takes them. ``doc_id``
    is a workspace's ``id``, else "".
    """

    nodes: list[Json]
    pages: list[PageText]
    envelope: Envelope
    doc_id: str = ""


# --- reading -------------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> PageIndexDocument:
    """Read a file (UTF-8, with or without a byte order mark).

    Raises InvalidInput, whose message begins with the path: no such file, a folder, not readable, or as :func:`loads`.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInput(f"must be a path, not {shown(path)}", field="path")
    name = shown_path(os.fsdecode(path))
    try:
        return from_json(_parsed(_decoded(Path(path).read_bytes())))
    except InvalidInput as error:
        raise error.of(name) from error.__cause__
    except OSError as error:
        raise InvalidInput(f"can't be read: {error.strerror or error}", source=name) from error
    except ValueError as error:  # a NUL in the path
        raise InvalidInput(f"is no path: {error}", source=name) from error


def loads(text: str | bytes | bytearray) -> PageIndexDocument:
    """Read JSON text.

    Raises InvalidInput: not UTF-8, not JSON, NaN or Infinity, nested too deeply (these with line and column), a key twice in
    one object, or as :func:`from_json`.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise InvalidInput(f"must be JSON text (str or bytes), not {shown(text)}; see also from_json", field="text")
    return from_json(_parsed(text if isinstance(text, str) else _decoded(text)))


def _decoded(raw: bytes | bytearray) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 (byte {error.start}: {error.reason})") from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=lambda name: _refuse_constant(text, name))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise InvalidInput(f"is nested too deeply{_too_deep_at(text)}; a tree has at most {MAX_DEPTH} levels") from error
    except InvalidInput:
        raise
    except ValueError as error:  # Python refuses to convert an integer of thousands of digits
        digits = sys.get_int_max_str_digits()
        raise InvalidInput(f"holds an integer of more than {digits} digits, which is too large") from error


def _object(pairs: list[tuple[str, Any]]) -> Json:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise InvalidInput("is given twice in one object", field=shown_key(twice), node=_id_of(made))
    return made


def _refuse_constant(text: str, name: str) -> NoReturn:
    first = next(token for token in _TOKENS.finditer(text) if token[0] == name)
    raise InvalidInput(f"{name} is no JSON value (at {_position(text, first.start())})")


def _too_deep_at(text: str) -> str:
    """Where JSON is deeper than any tree that may be stored."""
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += 1 if token[0] in "[{" else -1 if token[0] in "]}" else 0
        if depth > _MAX_LEVELS:
            return f": more than {_MAX_LEVELS} levels of JSON at {_position(text, token.start())}"
    return ""


def _position(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def from_json(parsed: object) -> PageIndexDocument:
    """Read a document that was parsed already; nothing of it is changed.

    Raises InvalidInput: not one of the three shapes, a node that is no object, ``nodes`` that is no list, node ids on some
    nodes only, a node id twice, more than 200 levels, or a value that breaks a rule of :mod:`treestore.trees.rules`.
    """
    if isinstance(parsed, list):
        raise InvalidInput("is a bare list; a PageIndex document is an object with its nodes in 'structure'")
    if not isinstance(parsed, dict):
        raise InvalidInput(f"is no PageIndex document, which is an object with its nodes in 'structure', but {shown(parsed)}")
    if not isinstance(parsed.get("structure"), list):
        problem = f"must be a list of nodes, not {shown(parsed['structure'])}" if "structure" in parsed else "is missing"
        raise InvalidInput(f"{problem}: this is no PageIndex document", field="structure")
    fields = _fields(parsed)
    nodes, read_nodes, node_keys = _nodes(parsed["structure"])
    generated = _complete_ids(read_nodes)
    _check_nodes(read_nodes)
    pages, page_keys = _pages(parsed.get("pages"))
    envelope = Envelope(
        shape=_shape(parsed, node_keys),
        fields=fields,
        keys=tuple(parsed),
        node_keys=node_keys,
        page_keys=page_keys,
        generated_ids=generated,
    )
    return PageIndexDocument(nodes=nodes, pages=pages, envelope=envelope, doc_id=fields.get("id") or "")


def _shape(parsed: Json, node_keys: tuple[str, ...]) -> Shape:
    if "pages" in parsed or ("id" in parsed and "path" in parsed):
        return "workspace"
    return "markdown" if "line_count" in parsed or "line_num" in node_keys else "pdf"


def _fields(parsed: Json) -> Json:
    """The document's own keys, checked."""
    fields = {key: value for key, value in parsed.items() if key != "structure" and (key != "pages" or value is None)}
    for key in _TEXTS:
        if fields.get(key) is not None:
            check_text(fields[key], key, limit=VERSIONS.lengths["pageindex_doc_id"] if key == "id" else None)
    for key in _NUMBERS:
        if fields.get(key) is not None:
            check_integer(fields[key], key)
    return check_json_object(fields, "")


def _nodes(structure: list[Any]) -> tuple[list[Json], list[Json], tuple[str, ...]]:
    """The nodes as mappings, nested; the same mappings in preorder; and the order in which nodes have their keys."""
    roots: list[Json] = []
    preorder: list[Json] = []
    orders: dict[tuple[str, ...], None] = {}
    open_lists: list[tuple[Iterator[Any], list[Json]]] = [(iter(structure), roots)]
    while open_lists:
        items, siblings = open_lists[-1]
        for item in items:
            node, children = _node(item, len(preorder))
            if len(open_lists) > MAX_DEPTH:
                raise InvalidInput(f"lies deeper than {MAX_DEPTH} levels", node=_label(item, len(preorder)))
            if len(preorder) == MAX_NODES:
                raise InvalidInput(f"a document has at most {MAX_NODES} nodes", field="structure")
            orders[tuple(item)] = None
            siblings.append(node)
            preorder.append(node)
            if children:
                node["nodes"] = []
                open_lists.append((iter(children), node["nodes"]))
                break
        else:
            open_lists.pop()
    return roots, preorder, _merged(orders)


def _node(item: Any, position: int) -> tuple[Json, list[Any]]:
    """One node as a mapping for storing, and its children as they stand in the file."""
    if not isinstance(item, dict):
        raise InvalidInput(f"must be an object, not {shown(item)}", node=_label(item, position))
    node: Json = {}
    extra: Json = {}
    children: list[Any] = []
    for key, value in item.items():
        if key in _FIELDS and value is not None:
            node[key] = value
        elif key == "nodes" and value:
            children = value
        else:
            extra[key] = value
    if not isinstance(item.get("nodes"), list | None):
        raise InvalidInput(f"must be a list of nodes, not {shown(item['nodes'])}", field="nodes", node=_label(item, position))
    if extra:
        node["extra"] = extra
    return node, children


def _label(item: Any, position: int) -> str:
    return _id_of(item) or f"#{position + 1}"


def _id_of(item: Any) -> str | None:
    node_id = item.get("node_id") if isinstance(item, dict) else None
    return shorten(node_id) if isinstance(node_id, str) and node_id else None


def _complete_ids(preorder: list[Json]) -> bool:
    """Give ids to the nodes of a file that has none: the preorder number in four digits, as PageIndex does."""
    lacking = [position for position, node in enumerate(preorder) if "node_id" not in node]
    if not lacking:
        return False
    if len(lacking) < len(preorder):
        raise InvalidInput("is missing, although other nodes have one", field="node_id", node=f"#{lacking[0] + 1}")
    for position, node in enumerate(preorder):
        node["node_id"] = f"{position:04d}"
    return True


def _check_nodes(preorder: list[Json]) -> None:
    positions: dict[str, int] = {}
    for position, node in enumerate(preorder):
        try:
            node_id = given_node(node, position).node_id
        except InvalidInput as error:
            if "extra" in node and (error.field or "").split(".")[0] == "extra":
                check_json_object(node["extra"], "", error.node)  # raises the same, calling the key as the file does
            raise
        first = positions.setdefault(node_id, position)
        if first != position:
            raise InvalidInput(f"is given twice (#{first + 1} and #{position + 1})", field="node_id", node=node_id)


def _pages(pages: Any) -> tuple[list[PageText], tuple[str, ...]]:
    """Page texts, and the order in which they have their keys."""
    if pages is None:
        return [], ()
    if not isinstance(pages, list):
        raise InvalidInput(f"must be a list of page texts, not {shown(pages)}", field="pages")
    orders = dict.fromkeys(tuple(page) for page in pages if isinstance(page, dict))
    return check_pages(map(_page, pages, count())), _merged(orders)


def _page(page: Any, index: int) -> Any:
    """A page as :func:`check_pages` takes it, which lets unknown keys stand where they are, but for one called ``extra``."""
    if not isinstance(page, dict) or "extra" not in page:
        return page
    extra = {key: value for key, value in page.items() if key not in _PAGE_KEYS}
    check_json_object(extra, f"pages[{index}]")
    known = {key: page[key] for key in _PAGE_KEYS if key in page}
    return known | {"extra": extra}


def _merged(orders: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """One order of keys that agrees with all of these where that is possible (a topological sort that prefers the key that
    appeared first; Kahn 1962), else the order of first appearance."""
    rank: dict[str, int] = {}
    followers: dict[str, set[str]] = {}
    for order in orders:
        for key in order:
            rank.setdefault(key, len(rank))
        for before, after in pairwise(order):
            followers.setdefault(before, set()).add(after)
    waits_for = dict.fromkeys(rank, 0)
    for afters in followers.values():
        for after in afters:
            waits_for[after] += 1
    ready = [(rank[key], key) for key, count in waits_for.items() if not count]
    merged: list[str] = []
    while ready:
        _, key = heapq.heappop(ready)
        merged.append(key)
        for after in followers.get(key, ()):
            waits_for[after] -= 1
            if not waits_for[after]:
                heapq.heappush(ready, (rank[after], after))
    return tuple(merged if len(merged) == len(rank) else rank)


# --- writing -------------------------------------------------------------------------------------------------------------


def write(document: Document) -> Json:
    """The document as PageIndex JSON, equal to what was read. One that was stored without an envelope takes the pdf shape,
    with its policy's id as ``doc_name``. Raises InvalidInput for what is no document."""
    if not isinstance(document, Document):
        raise InvalidInput(f"must be a Document, as get_document gives it, not {shown(document)}", field="document")
    envelope = document.version.pageindex
    if envelope is None:
        envelope = Envelope(
            shape="pdf", fields={"doc_name": document.version.policy_id}, keys=("doc_name", "structure"), node_keys=_NODE_KEYS
        )
    present = dict(envelope.fields)
    present["structure"] = _written_nodes(document.nodes, envelope)
    if document.pages or ("pages" in envelope.keys and "pages" not in envelope.fields):
        present["pages"] = [_written_page(page, _ranks(envelope.page_keys)) for page in document.pages]
    return _ordered(present, _ranks(envelope.keys))


def dumps(document: Document) -> str:
    """:func:`write`, as text: indented by 2, without a final newline, only those characters escaped that must be."""
    return msgspec.json.format(msgspec.json.encode(write(document)), indent=2).decode()


def _written_nodes(nodes: Iterable[Node], envelope: Envelope) -> list[Json]:
    """Nest nodes that come in document order."""
    ranks = _ranks(envelope.node_keys)
    structure: list[Json] = []
    open_lists = [structure]  # the lists of the node before and of its ancestors; a node of depth d goes to number d
    for node in nodes:
        children: list[Json] | None = [] if node.last_ordinal > node.ordinal else None
        del open_lists[node.depth + 1 :]
        open_lists[-1].append(_written_node(node, children, ranks, with_id=not envelope.generated_ids))
        if children is not None:
            open_lists.append(children)
    return structure


def _written_node(node: Node, children: list[Json] | None, ranks: dict[str, int], *, with_id: bool) -> Json:
    fields = (
        node.title,
        node.node_id if with_id else None,
        node.page_start,
        node.page_end,
        node.line_num,
        node.summary,
        node.prefix_summary,
        node.text,
        children,
    )
    present = {key: value for key, value in zip(_NODE_KEYS, fields, strict=True) if value is not None}
    return _ordered((node.extra or {}) | present, ranks)


def _written_page(page: PageText, ranks: dict[str, int]) -> Json:
    return _ordered((page.extra or {}) | {"page": page.page, "content": page.content}, ranks)


def _ranks(keys: tuple[str, ...]) -> dict[str, int]:
    return {key: rank for rank, key in enumerate(keys)}


def _ordered(present: Json, ranks: dict[str, int]) -> Json:
    """The same keys in the order of their ranks; those without one last, as they come."""
    last = len(ranks)
    return {key: present[key] for key in sorted(present, key=lambda key: ranks.get(key, last))}
