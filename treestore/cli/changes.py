"""The verb that shows what changed between two versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from treestore.cli.options import Json, Policy, Store, opened
from treestore.cli.output import Segment, pages_of, place_of, printable, write, write_json, write_styled
from treestore.trees.wording import Rewording, rewordings, shortened

if TYPE_CHECKING:
    from treestore.records import Diff, Node, NodeChange, Place
    from treestore.repositories.plan import SyncDriver
    from treestore.store import Snapshot

_LISTS = (
    ("added", "+", "green"),
    ("removed", "-", "red"),
    ("changed", "~", "yellow"),
    ("moved", ">", "blue"),
    ("repaged", "=", "bright_black"),
)
_HANGING = 8  # columns before what goes on in the next line
_SHOWN_AT_ONCE = 500  # nodes read at once for what they said before and say now
_PLACES = 3  # places of one field that are shown
_WORDS = 30  # words of one place

Line = list[Segment]
_Said = dict[str, tuple["Node", "Node"]]  # by the node's id in the version after


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(diff)


def diff(
    context: typer.Context,
    policy: Policy,
    version_a: Annotated[str, typer.Argument(metavar="A", help="Id of the version before.", show_default=False)],
    version_b: Annotated[str, typer.Argument(metavar="B", help="Id of the version after.", show_default=False)],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show what changed between two versions.

    Nodes are matched by what they say, so other node ids are no change. + was added, - removed, ~ says something else, > is in
    another place, = stands on other pages or lines: of a section that was renumbered and says the same, = names the top, not
    each node below it. The status is 0 whether something changed or not.
    """
    with opened(context, store) as target, target.snapshot() as view:
        found = view.versions.diff(policy, version_a, version_b)
        if as_json:
            write_json(found)
            return
        for name, sign, style in _LISTS:
            changes: list[NodeChange] = getattr(found, name)
            if changes:
                write_styled([[(f"{name.capitalize()} ({len(changes)})", "bold")]])
            for start in range(0, len(changes), _SHOWN_AT_ONCE):
                some = changes[start : start + _SHOWN_AT_ONCE]
                said = _said(view, found, some) if name == "changed" else {}
                write_styled(list(_lines(name, some, (sign, style), said)), hanging=_HANGING)
            if changes:
                write("\n")
    write_styled([[(_counts(found), "")]], hanging=0)


def _said(view: Snapshot[SyncDriver], found: Diff, changes: Sequence[NodeChange]) -> _Said:
    """What changed nodes said in one version and say in the other."""
    before_ids = [change.before.node_id for change in changes if change.before]
    after_ids = [change.after.node_id for change in changes if change.after]
    before = view.documents.get_nodes(found.policy_id, before_ids, version_id=found.version_a)
    after = view.documents.get_nodes(found.policy_id, after_ids, version_id=found.version_b)
    return {new.node_id: (old, new) for old, new in zip(before, after, strict=True)}


def _counts(found: Diff) -> str:
    counts = [(len(getattr(found, name)), name) for name, *_ in _LISTS]
    return ", ".join(f"{count} {name}" for count, name in counts if count) or "no differences"


def _lines(name: str, changes: Sequence[NodeChange], sign: Segment, said: _Said) -> Iterator[Line]:
    """The lines of one list: each node after its sign, below it what is to be said of it."""
    above: list[tuple[str, ...]] = []
    for change in changes:
        place = change.after or change.before
        assert place is not None, "a change has a node"
        while above and above[-1] != place.path[:-1]:
            above.pop()
        # What came or went together is shown as a tree; whatever stands alone, with the way to it.
        nested = len(above) if name in ("added", "removed") else 0
        line = [sign, ("  " * nested + " ", ""), (_ids(change), "cyan"), ("  ", "")]
        line += [(printable(place.path[-1]), "")] if nested else _path(place.path)
        yield [*line, (_remark(name, change), "bright_black")]
        above.append(place.path)
        if place.node_id in said:
            yield from _reworded(change.fields, *said[place.node_id])


def _ids(change: NodeChange) -> str:
    ids = dict.fromkeys(printable(place.node_id) for place in (change.before, change.after) if place)
    return " → ".join(ids)


def _path(path: Sequence[str]) -> Line:
    """The way to a node, its own title last."""
    return [("".join(f"{printable(title)} › " for title in path[:-1]), "bright_black"), (printable(path[-1]), "")]


def _remark(name: str, change: NodeChange) -> str:
    """What is said of a change behind the node's title."""
    before, after = change.before, change.after
    if before and after and name == "moved":
        if before.path[:-1] == after.path[:-1]:
            return f"  (was {printable(before.section_path)}, is {printable(after.section_path)})"
        return "  (from " + (" › ".join(map(printable, before.path[:-1])) or "the top") + ")"
    if before and after and name == "repaged":
        return "".join(f"  [{was}]" for was in _repaged(before, after))
    if name == "changed":
        return ""
    return "".join(f"  [{place_of(place)}]" for place in (before, after) if place and place_of(place))


def _repaged(before: Place, after: Place) -> Iterator[str]:
    """Where a node stood, and where it stands now, for each way of saying so in which it differs."""
    for kind, old, new in (
        ("page", pages_of(before), pages_of(after)),
        ("line", _numbered("line", before.line_num), _numbered("line", after.line_num)),
        ("page_index", _numbered("page_index", before.page_index), _numbered("page_index", after.page_index)),
    ):
        if old != new:
            word, _, number = new.partition(" ")
            yield f"{old or f'no {kind}'} → {(number if old.startswith(f'{word} ') else new) or f'no {kind}'}"


def _numbered(kind: str, number: int | None) -> str:
    return "" if number is None else f"{kind} {number}"


# --- before and after ----------------------------------------------------------------------------------------------------


def _reworded(fields: Sequence[str], before: Node, after: Node) -> Iterator[Line]:
    """What each field said before, and says now, where that differs."""
    for field in fields:
        old, new = _text(getattr(before, field)), _text(getattr(after, field))
        if field == "title" and (title := _retitled(old or "", new or "")):
            yield [("    title:", "bright_black")]
            yield _place("-", title, title.before, "red")
            yield _place("+", title, title.after, "green")
            continue
        places = rewordings(old, new)
        left_out = f", {len(places) - _PLACES} more places" if len(places) > _PLACES else ""
        yield [(f"    {field}{left_out}" + (":" if places else ": spaces and line breaks alone"), "bright_black")]
        for place in places[:_PLACES]:
            if place.before:
                yield _place("-", place, place.before, "red")
            if place.after:
                yield _place("+", place, place.after, "green")


def _retitled(before: str, after: str) -> Rewording | None:
    """Both titles whole, since a title is read as one: also where words only came or only went. None if only their spaces
    differ."""
    places = rewordings(before, after, context=len(before))
    return places[0] if len(places) == 1 else Rewording("", before, after, "") if places else None


def _place(sign: str, place: Rewording, words: str, style: str) -> Line:
    pieces = [(place.lead, style), (shortened(words, _WORDS), f"bold {style}"), (place.rest, style)]
    line: Line = [(f"      {sign}", style)]
    for text, of_piece in pieces:
        if text:
            line += [(" ", style), (printable(text), of_piece)]
    return line


def _text(value: Any) -> str | None:
    """A field's value as words: JSON has spaces between its entries."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
