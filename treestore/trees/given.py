"""Nodes and page texts as a caller gives them: read from a record or a mapping, one by one, and checked.

Keys of a node's mapping: ``node_id``, ``title`` (both required), ``parent_id`` (absent, ``None`` or ``""``: a root),
``page_start`` or ``start_index``, ``page_end`` or ``end_index``, ``page_index``, ``line_num``, ``summary``,
``prefix_summary``, ``text``, ``section_path``, ``validation_status``, ``metadata``, ``extra`` and ``nodes`` (the children).
``None`` is the same as absent. Keys that are derived (``ordinal``, ``node_hash``, …) are accepted and ignored, so that what
was read can be stored again. Any other key goes to ``extra``.

What is returned shares nothing with the caller's objects but immutable values. All rules are those of
:mod:`treestore.trees.rules`; what breaks one raises :class:`~treestore.errors.InvalidInput`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, ValidationError, convert

from treestore.errors import InvalidInput
from treestore.records import Node, Outline, PageText, ValidationStatus
from treestore.trees.rules import (
    MAX_INTEGER,
    MAX_RESULTS,
    NODE_ID_LENGTH,
    NOT_LISTS,
    SECTION_PATH_LENGTH,
    check_integer,
    check_json_object,
    check_node_id,
    check_raw_text,
    check_status,
    check_text,
    shorten,
    shown,
    shown_key,
    text_fault,
)

DERIVED_KEYS: Final = frozenset(
    {
        "policy_id",
        "version_id",
        "ordinal",
        "last_ordinal",
        "parent_ordinal",
        "depth",
        "node_hash",
        "tree_hash",
        "text_hash",
        "updated_at",
        "child_ids",
    }
)
"""Keys of a node's mapping that say what is derived anyway; their values are ignored."""

NODE_KEYS: Final = frozenset(
    {
        "node_id",
        "parent_id",
        "title",
        "page_start",
        "page_end",
        "start_index",
        "end_index",
        "page_index",
        "line_num",
        "summary",
        "prefix_summary",
        "text",
        "section_path",
        "validation_status",
        "metadata",
        "extra",
        "nodes",
    }
)
"""Keys of a node's mapping that have a field (two of them each for the pages) or say its place."""

_NOT_EXTRA = NODE_KEYS | DERIVED_KEYS


_Id = Annotated[str, Meta(min_length=1, max_length=NODE_ID_LENGTH)]
_Integer = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """A node as it was given, checked; ``None`` is absent. ``children`` are the contents of ``nodes``, not looked at."""

    node_id: _Id
    title: str
    parent_id: _Id | None = None
    page_start: _Integer | None = None
    page_end: _Integer | None = None
    page_index: _Integer | None = None
    line_num: _Integer | None = None
    summary: str | None = None
    prefix_summary: str | None = None
    text: str | None = None
    section_path: Annotated[str, Meta(max_length=SECTION_PATH_LENGTH)] | None = None
    validation_status: ValidationStatus = "pending"
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    children: Any = msgspec.field(name="nodes", default=())  # a list or tuple


class _Indexed(Given, forbid_unknown_fields=True):
    """The same, with the pages under their other names."""

    page_start: _Integer | None = msgspec.field(name="start_index", default=None)
    page_end: _Integer | None = msgspec.field(name="end_index", default=None)


def given_node(item: object, position: int) -> Given:
    """Read and check one node; what concerns several (unique ids, parents, depth) is left to the caller.

    ``position`` counts the nodes of the input from 0. A node without a usable id is called by it, from 1: "#17".
    """
    if type(item) is dict:
        plain = _plain(item)
        if plain is not None:
            return plain
    if isinstance(item, Mapping):
        return _from_mapping(item, position)
    if isinstance(item, Outline):
        return _from_record(item, position)
    raise InvalidInput(f"must be a mapping or a node record, not {shown(item)}", node=_place(position))


def _plain(item: dict[Any, Any]) -> Given | None:
    """A node that is plainly right, which is the usual case: each key has a field, each value is of its very type and within
    its limits. ``None`` for any other, which is then looked at field by field, by the same rules: that takes three times as
    long, and knows what to say."""
    try:
        given: Given = convert(item, _Indexed if "start_index" in item else Given)
    except (ValidationError, UnicodeError):  # the second for a lone surrogate in a key or a status
        return None
    node_id, parent_id, title, summary, text = given.node_id, given.parent_id, given.title, given.summary, given.text
    words = f"{node_id}{parent_id or ''}{title}{summary or ''}{text or ''}"
    kinds = {str, type(node_id), type(parent_id), type(title), type(summary), type(text)}
    if given.prefix_summary is not None or given.section_path is not None:
        words = f"{words}{given.prefix_summary or ''}{given.section_path or ''}"
        kinds |= {type(given.prefix_summary), type(given.section_path)}
    start, end = given.page_start, given.page_end
    if (
        text_fault(words) is not None
        or not kinds <= _PLAIN  # a subclass of str may keep more than its characters
        or (start is not end if start is None or end is None else start > end)
        or type(given.children) not in _LISTS
    ):
        return None
    if given.metadata is not None:
        given.metadata = check_json_object(given.metadata, "metadata", node_id)
    if given.extra is not None:
        given.extra = check_json_object(given.extra, "extra", node_id)
    return given


_PLAIN = frozenset({str, type(None)})
_LISTS = frozenset({list, tuple})


def _place(position: int) -> str:
    return f"#{position + 1}"


def _from_mapping(item: Mapping[Any, Any], position: int) -> Given:
    get: Callable[[str], Any] = item.get
    start, end = get("page_start"), get("page_end")
    start_key, end_key = "page_start", "page_end"
    if "start_index" in item:
        start, start_key = _either(item, start_key, "start_index", position)
    if "end_index" in item:
        end, end_key = _either(item, end_key, "end_index", position)
    if start is None and end_key == "end_index":  # a page that is missing is called as the other one is
        start_key = "start_index"
    elif end is None and start_key == "start_index":
        end_key = "end_index"
    given = Given(
        get("node_id"),
        get("title"),
        get("parent_id"),
        start,
        end,
        get("page_index"),
        get("line_num"),
        get("summary"),
        get("prefix_summary"),
        get("text"),
        get("section_path"),
        get("validation_status"),
        get("metadata"),
        get("extra"),
    )
    _check(given, position, start_key, end_key)
    if not item.keys() <= _NOT_EXTRA:
        given.extra = _with_unknown(given.extra, item, _NOT_EXTRA, "", given.node_id)
    children = get("nodes")
    if children is not None:
        if not isinstance(children, list | tuple):
            raise InvalidInput(f"must be a list of nodes, not {shown(children)}", field="nodes", node=shorten(given.node_id))
        given.children = children
    return given


def _either(item: Mapping[Any, Any], name: str, alias: str, position: int) -> tuple[Any, str]:
    """The value that is given under one of two names, and the name."""
    value, aliased = item.get(name), item[alias]
    if value is None:
        return aliased, alias
    if aliased is not None and aliased != value:
        raise InvalidInput(f"differs from {name}, which is the same field", field=alias, node=_label(item, position))
    return value, name


def _label(item: Mapping[Any, Any], position: int) -> str:
    node_id = item.get("node_id")
    return shorten(node_id) if isinstance(node_id, str) and node_id else _place(position)


def _from_record(item: Outline, position: int) -> Given:
    text: Any = getattr(item, "text", None)
    given = Given(
        item.node_id,
        item.title,
        item.parent_id,
        item.page_start,
        item.page_end,
        item.page_index,
        item.line_num,
        item.summary,
        item.prefix_summary,
        text,
        item.section_path,
        item.validation_status,
        item.metadata,
        item.extra,
    )
    _check(given, position, "page_start", "page_end")
    if item.text_hash is not None and not isinstance(item, Node):
        rule = "is an outline, without the text that the node has; storing it would lose the text"
        raise InvalidInput(rule, node=shorten(given.node_id))
    return given


def _check(given: Given, position: int, start_key: str, end_key: str) -> None:
    """Check in place the fields, of which none is yet known to be of its type. ``start_key`` and ``end_key`` are the names
    that the two pages were given under."""
    given.node_id = node = _checked_id(given.node_id, position)
    if given.parent_id is not None:
        given.parent_id = check_text(given.parent_id, "parent_id", node, NODE_ID_LENGTH) or None
    given.title = _title(given.title, node)
    if given.page_start is not None or given.page_end is not None:
        _check_pages_of(given, start_key, end_key)
    if given.page_index is not None:
        given.page_index = check_integer(given.page_index, "page_index", node)
    if given.line_num is not None:
        given.line_num = check_integer(given.line_num, "line_num", node)
    if given.summary is not None:
        given.summary = check_text(given.summary, "summary", node)
    if given.prefix_summary is not None:
        given.prefix_summary = check_text(given.prefix_summary, "prefix_summary", node)
    if given.text is not None:
        given.text = check_text(given.text, "text", node)
    if given.section_path is not None:
        given.section_path = check_text(given.section_path, "section_path", node, SECTION_PATH_LENGTH)
    given.validation_status = _status(given.validation_status, node)
    if given.metadata is not None:
        given.metadata = check_json_object(given.metadata, "metadata", node)
    if given.extra is not None:
        given.extra = check_json_object(given.extra, "extra", node)


def _checked_id(value: object, position: int) -> str:
    if value is None:
        raise InvalidInput("is required", field="node_id", node=_place(position))
    return check_node_id(value, "node_id", shorten(value) if isinstance(value, str) and value else _place(position))


def _title(value: object, node: str) -> str:
    if value is None:
        raise InvalidInput("is required (it may be empty)", field="title", node=node)
    return check_text(value, "title", node)


def _status(value: object, node: str) -> ValidationStatus:
    return "pending" if value is None else check_status(value, "validation_status", node)


def _check_pages_of(given: Given, start_key: str, end_key: str) -> None:
    start, end, node = given.page_start, given.page_end, given.node_id
    if start is not None:
        given.page_start = check_integer(start, start_key, node)
    if end is not None:
        given.page_end = check_integer(end, end_key, node)
    if given.page_start is None or given.page_end is None:
        there, lacking = (end_key, start_key) if start is None else (start_key, end_key)
        raise InvalidInput(f"is missing, although {there} is given; give both or neither", field=lacking, node=node)
    if given.page_start > given.page_end:
        raise InvalidInput(f"{start} is after {end_key} {end}", field=start_key, node=node)


def _with_unknown(
    extra: dict[str, Any] | None, item: Mapping[Any, Any], known: frozenset[str], place: str, node: str | None
) -> dict[str, Any]:
    """``extra`` as given, and after it the keys that have no field. ``place`` is where they stand ("": in the node)."""
    unknown = check_json_object({key: value for key, value in item.items() if key not in known}, place, node)
    if extra is None:
        return unknown
    for key in unknown:
        if key in extra:
            rule = "is given twice, as a key of its own and in extra"
            raise InvalidInput(rule, field=f"{place}.{shown_key(key)}" if place else shown_key(key), node=node)
    return extra | unknown


# --- page texts ----------------------------------------------------------------------------------------------------------

_PAGE_KEYS = frozenset({"page", "content", "extra"})


def check_pages(pages: Iterable[object]) -> list[PageText]:
    """Page texts, in the order given, from records or mappings with ``page``, ``content``, ``extra`` and other keys, which
    go to ``extra``.

    A page's number is from 0 to 2**31 - 1 and unique, its content a string, which may be empty and may hold NUL (see
    :func:`~treestore.trees.rules.check_raw_text`).
    """
    if isinstance(pages, NOT_LISTS) or not isinstance(pages, Iterable):
        raise InvalidInput(f"must be a list of page texts, not {shown(pages)}", field="pages")
    checked: dict[int, PageText] = {}
    for index, item in enumerate(pages):
        if index >= MAX_RESULTS:
            raise InvalidInput(f"more than {MAX_RESULTS} page texts", field="pages")
        page = _page(item, f"pages[{index}]")
        if page.page in checked:
            raise InvalidInput(f"page {page.page} is given more than once", field=f"pages[{index}].page")
        checked[page.page] = page
    return list(checked.values())


def _page(item: object, place: str) -> PageText:
    if isinstance(item, PageText):
        page, content, extra = item.page, item.content, item.extra
    elif isinstance(item, Mapping):
        for key in ("page", "content"):
            if key not in item:
                raise InvalidInput("is required", field=f"{place}.{key}")
        page, content, extra = item["page"], item["content"], item.get("extra")
    else:
        raise InvalidInput(f"must be a mapping or a page text record, not {shown(item)}", field=place)
    number = check_integer(page, f"{place}.page")
    text = check_raw_text(content, f"{place}.content")
    rest = None if extra is None else check_json_object(extra, f"{place}.extra")
    if isinstance(item, Mapping) and not item.keys() <= _PAGE_KEYS:
        rest = _with_unknown(rest, item, _PAGE_KEYS, place, None)
    return PageText(page=number, content=text, extra=rest)
