"""What a diff names: on every revision of the real trees, on random ones, and what it looks at to know."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st

from tests.growth import grows_at_most
from tests.trees.revisions import (
    SHIPPED,
    Expected,
    Json,
    Revision,
    alike,
    diff_of,
    edited,
    find,
    given,
    inserted,
    moved,
    named,
    parent_of,
    removed,
    repaginated,
    shipped,
    unwrapped,
    walk,
)
from treestore import Diff, Node
from treestore.trees.derive import derive_now
from treestore.trees.siblings import longest_increasing

FILES = sorted(path.name for path in SHIPPED.glob("*.json"))
EMPTY: dict[str, list[Any]] = {name: [] for name in ("added", "removed", "changed", "moved", "repaged")}


def derived(roots: list[Json], renumber: bool = True) -> tuple[list[Node], dict[str, str]]:
    flat, marks = given(roots, renumber)
    return derive_now("p", "1", flat), marks


def lists(diff: Diff) -> dict[str, list[Any]]:
    return {name: getattr(diff, name) for name in EMPTY}


def check(roots: list[Json], revision: Revision, *, renumber: bool, shift: int = 0) -> Diff:
    """The diff of a tree and its revision names what was done, and so does its mirror."""
    revised, expected = revision
    same = alike(roots) if shift else {}  # nothing tells apart siblings that say the same and are on other pages
    expected = Expected(*(_counted(part, same) for part in expected))
    before, marks_before = derived(roots, renumber)
    after, marks_after = derived(repaginated(revised, shift) if shift else revised, renumber)
    diff = diff_of(before, after)
    assert named(diff, marks_before, marks_after, same) == expected
    mirror = diff_of(after, before)
    swapped = Expected(expected.removed, expected.added, expected.changed, expected.moved)
    assert named(mirror, marks_after, marks_before, same) == swapped
    return diff


def _counted(part: Any, same: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {same.get(mark, mark): fields for mark, fields in part.items()}
    return {same.get(mark, mark) for mark in part}


MODES = [
    pytest.param(False, 0, id="ids kept"),
    pytest.param(True, 0, id="renumbered"),
    pytest.param(True, 3, id="renumbered and other pages"),
]
"""Whether ids are preorder numbers, and by how many pages the rest shifts."""


@pytest.mark.parametrize(("renumber", "shift"), MODES)
@pytest.mark.parametrize("name", FILES)
class TestEveryNodeOfTheRealTrees:
    def test_a_section_inserted(self, name: str, renumber: bool, shift: int) -> None:
        roots = shipped(name)
        for node in walk(roots):
            for inside in (False, True):
                check(roots, inserted(roots, node["mark"], inside=inside), renumber=renumber, shift=shift)

    def test_a_section_removed(self, name: str, renumber: bool, shift: int) -> None:
        roots = shipped(name)
        for node in walk(roots):
            check(roots, removed(roots, node["mark"]), renumber=renumber, shift=shift)

    def test_a_section_removed_and_what_was_below_it_kept(self, name: str, renumber: bool, shift: int) -> None:
        roots = shipped(name)
        same = alike(roots) if shift else {}
        for node in walk(roots):
            below = [same.get(child["mark"], child["mark"]) for child in node["nodes"]]
            if len(set(below)) < len(below):
                continue  # nothing tells apart headings that are no more than that, and on other pages
            check(roots, unwrapped(roots, node["mark"]), renumber=renumber, shift=shift)

    @pytest.mark.parametrize("field", ["title", "summary", "text", "metadata"])
    def test_a_section_edited(self, name: str, renumber: bool, shift: int, field: str) -> None:
        roots = shipped(name)
        for node in walk(roots):
            check(roots, edited(roots, node["mark"], field), renumber=renumber, shift=shift)

    def test_a_section_moved_among_its_siblings(self, name: str, renumber: bool, shift: int) -> None:
        roots = shipped(name)
        same = alike(roots)
        for node in walk(roots):
            if list(same.values()).count(same[node["mark"]]) > 1:
                continue  # what changes places with a sibling that says the same did not move
            parent = parent_of(roots, node["mark"])
            siblings = roots if parent is None else parent["nodes"]
            at = siblings.index(node)
            for to in {0, len(siblings) // 2, len(siblings) - 1} - {at - 1, at, at + 1}:  # neighbours: either one moved
                revision = moved(roots, node["mark"], None if parent is None else parent["mark"], to)
                check(roots, revision, renumber=renumber, shift=shift)

    def test_a_section_moved_to_another_parent(self, name: str, renumber: bool, shift: int) -> None:
        roots = shipped(name)
        everything = list(walk(roots))
        chosen = random.Random(name)
        for node in everything:
            parent = parent_of(roots, node["mark"])
            inside = [below["mark"] for below in walk([node])]
            targets = [one["mark"] for one in everything if one["mark"] not in inside and one is not parent]
            for target in chosen.sample(targets, min(3, len(targets))):
                check(roots, moved(roots, node["mark"], target, 0), renumber=renumber, shift=shift)


# --- single rules --------------------------------------------------------------------------------------------------------


def node(mark: str, *below: Json, **fields: Any) -> Json:
    return {"mark": mark, "title": fields.pop("title", f"title of {mark}"), **fields, "nodes": list(below)}


def told(before: list[Json], after: list[Json], *, renumber: bool = False) -> Expected:
    """What the diff of two trees names, by their own marks: a node's on both sides, or both joined where they differ."""
    (ours, marks_before), (theirs, marks_after) = derived(before, renumber), derived(after, renumber)
    found: list[Any] = []
    diff = diff_of(ours, theirs)
    for name in ("added", "removed", "changed", "moved"):
        part = {}
        for change in getattr(diff, name):
            marks = [marks_before[change.before.node_id]] if change.before else []
            marks += [marks_after[change.after.node_id]] if change.after else []
            part[" > ".join(dict.fromkeys(marks))] = change.fields
        found.append(part if name == "changed" else set(part))
    return Expected(*found)


def test_a_version_does_not_differ_from_itself_and_nothing_is_read() -> None:
    for name in FILES:
        nodes, _ = derived(shipped(name))
        read: list[int] = []
        assert lists(diff_of(nodes, nodes, read)) == EMPTY
        assert read == []
    assert lists(diff_of([], [])) == EMPTY


def test_all_and_nothing() -> None:
    nodes, _ = derived(shipped(FILES[0]))
    diff = diff_of([], nodes)
    assert [change.after.node_id for change in diff.added if change.after] == [one.node_id for one in nodes]
    assert lists(diff) == {**EMPTY, "added": diff.added}
    diff = diff_of(nodes, [])
    assert [change.before.node_id for change in diff.removed if change.before] == [one.node_id for one in nodes]
    assert lists(diff) == {**EMPTY, "removed": diff.removed}


def test_places_tell_ids_titles_and_pages_of_both_versions() -> None:
    ours, _ = derived([node("a", node("b", text="b", page_start=1, page_end=2))])
    theirs, _ = derived([node("new"), node("a", node("b", text="c", page_start=3, page_end=3))])
    diff = diff_of(ours, theirs)
    [change] = diff.changed
    assert change.before is not None and change.after is not None
    assert (change.before.node_id, change.after.node_id) == ("0001", "0002")
    assert (change.before.section_path, change.after.section_path) == ("1.1", "2.1")
    assert change.before.path == change.after.path == ("title of a", "title of b")
    assert (change.before.page_start, change.after.page_end) == (1, 3)
    assert change.fields == ("text",)
    assert [one.fields for one in diff.repaged] == [("page_start", "page_end")]
    assert [one.after and one.after.ordinal for one in diff.added] == [0]


def test_all_fields_of_a_changed_node_are_named() -> None:
    before = node("a", text="a", summary="s", prefix_summary="p", metadata={"x": 1})
    edits: list[Json] = [
        {"title": "other"},
        {"summary": None},
        {"summary": ""},
        {"prefix_summary": "q", "text": "b"},
        {"validation_status": "flagged"},
        {"metadata": {"x": 1.0}},
        {"metadata": {"x": True}},
        {"metadata": None, "extra": {}},
        {"title": "other", "text": "other", "summary": "other", "prefix_summary": "other"},
    ]
    for fields in edits:
        after = {**before, **fields}
        order = ("title", "summary", "prefix_summary", "text", "validation_status", "metadata", "extra")
        assert told([before], [after]) == Expected(changed={"a": tuple(name for name in order if name in fields)}), fields


def test_reordered_keys_are_no_change_at_any_level() -> None:
    before = node("a", metadata={"x": 1, "y": {"p": 1, "q": [1, 2]}}, extra={"k": 1, "l": 2})
    after = node("a", metadata={"y": {"q": [1, 2], "p": 1}, "x": 1}, extra={"l": 2, "k": 1})
    ours, theirs = derived([before])[0], derived([after])[0]
    assert lists(diff_of(ours, theirs)) == EMPTY


def test_other_ids_and_section_paths_alone_are_no_change() -> None:
    for name in FILES:
        roots = shipped(name)
        before = derived(roots, renumber=True)[0]
        for one in walk(roots):
            one["mark"] = f"id {one['mark']}"
        assert lists(diff_of(before, derived(roots, renumber=False)[0])) == EMPTY
        for one in walk(roots):
            one["section_path"] = f"§ {one['mark']}"
        assert lists(diff_of(before, derived(roots, renumber=True)[0])) == EMPTY


def test_other_pages_are_told_apart_for_every_node_whose_number_stayed() -> None:
    roots = [node("a", node("b", node("c", page_index=1)), node("d"), page_start=1, page_end=9), node("e", line_num=3)]
    after = copy.deepcopy(roots)
    find(after, "c")["page_index"] = 2
    find(after, "a").update(page_end=10, text="changed")
    find(after, "e")["line_num"] = 4
    diff = diff_of(derived(roots)[0], derived(after)[0])
    assert [(one.after and one.after.node_id, one.fields) for one in diff.repaged] == [
        ("0000", ("page_end",)),
        ("0002", ("page_index",)),
        ("0004", ("line_num",)),
    ]
    assert [(one.after and one.after.node_id, one.fields) for one in diff.changed] == [("0000", ("text",))]
    assert (diff.added, diff.removed, diff.moved) == ([], [], [])


def test_a_section_that_was_renumbered_and_shifted_is_told_once_by_its_top() -> None:
    section = node("s", node("s1", page_start=4, page_end=4), node("s2", page_start=5, page_end=6), page_start=4, page_end=6)
    before = [node("a"), section]
    after = repaginated([node("a"), node("new", text="new"), section], 2)
    diff = diff_of(derived(before)[0], derived(after)[0])
    assert [one.after and one.after.node_id for one in diff.repaged] == ["0002"]
    kept = diff_of(derived(before)[0], derived([node("a"), *repaginated([section], 2)])[0])
    assert [one.after and one.after.node_id for one in kept.repaged] == ["0001", "0002", "0003"]


def test_a_section_that_was_rewritten_in_every_word_keeps_what_is_in_it() -> None:
    below = [node(f"c{at}", text=f"text {at}") for at in range(4)]
    before = [node("x"), node("s", *below, text="s"), node("y")]
    after = [node("new"), node("x"), node("t", *below, text="t"), node("y")]
    for renumber in (False, True):
        assert told(before, after, renumber=renumber) == Expected({"new"}, set(), {"s > t": ("title", "text")}, set())


def test_a_section_moved_and_changed_inside() -> None:
    section = [node("s1", text="one"), node("s2", text="two")]
    before = [node("a", node("s", *section, text="s")), node("b", text="b")]
    after = [node("a"), node("b", node("s", *section[:1], node("s3", text="three"), text="s"), text="b")]
    for renumber in (False, True):
        assert told(before, after, renumber=renumber) == Expected({"s3"}, {"s2"}, {}, {"s"})


def test_what_moved_out_of_a_section_that_is_gone_moved_and_is_not_gone() -> None:
    before = [node("a", node("s", node("s1", text="kept"), node("s2", text="gone"), text="s")), node("b")]
    after = [node("a"), node("b", node("s1", text="kept"))]
    assert told(before, after, renumber=True) == Expected(set(), {"s", "s2"}, {}, {"s1"})


def test_two_headings_inside_of_sections_that_came_and_went_are_no_move() -> None:
    before = [node("a", node("a1", title="Introduction"), node("a2", text="all of a"), text="a"), node("z")]
    after = [node("z"), node("b", node("b1", title="Introduction"), node("b2", text="all of b"), text="b")]
    assert told(before, after) == Expected({"b", "b1", "b2"}, {"a", "a1", "a2"}, {}, set())


def test_a_section_swapped_with_its_neighbour_is_one_move() -> None:
    one, two, three = node("a", text="a"), node("b", text="b"), node("c", text="c")
    found = told([one, two, three], [one, three, two], renumber=True)
    assert found in (Expected(moved={"b"}), Expected(moved={"c"}))
    assert told([one, two, three], [three, two, one]).moved in ({"a", "b"}, {"b", "c"}, {"a", "c"})


def test_one_more_of_many_that_say_the_same() -> None:
    many = [node(f"{at}", title="Notes", page_start=at, page_end=at) for at in range(50)]
    new = node("new", title="Notes", page_start=100, page_end=100)
    for at in (0, 20, 50):
        assert told(many, [*many[:at], new, *many[at:]], renumber=True) == Expected({"new"}, set(), {}, set())
        plain = [{key: value for key, value in one.items() if "page" not in key} for one in (*many[:at], new, *many[at:])]
        found = told([one for one in plain if one["mark"] != "new"], plain, renumber=True)
        assert (len(found.added), found._replace(added=set())) == (1, Expected())


# --- what is looked at ---------------------------------------------------------------------------------------------------


def test_only_what_differs_is_read() -> None:
    """The children of the nodes on the ways to what differs, on both sides."""
    fan_out, count = 8, 20_000
    tree = [
        {"node_id": f"{at}", "parent_id": f"{(at - 1) // fan_out}" if at else None, "title": f"{at}", "text": f"text {at}"}
        for at in range(count)
    ]
    before = derive_now("p", "1", tree)
    revised = [dict(one) for one in tree]
    for at in (777, 9_000, 19_999):
        revised[at]["text"] = "changed"
    read: list[int] = []
    diff = diff_of(before, derive_now("p", "1", revised), read)
    assert {change.after and change.after.node_id for change in diff.changed} == {"777", "9000", "19999"}
    levels = max(one.depth for one in before)
    assert sum(read) <= 2 * (1 + 3 * levels * fan_out)


@pytest.mark.parametrize("kind", ["all different", "all the same", "two kinds", "reversed"])
def test_fifty_thousand_siblings_take_near_linear_time(kind: str) -> None:
    def tree(turn: int, count: int) -> list[Node]:
        names = {
            "all different": [f"{turn} {at}" for at in range(count)],
            "all the same": ["same"] * (count - turn),
            "two kinds": [f"{(at + turn) % 2}" for at in range(count)],
            "reversed": [f"{at}" for at in range(count)][:: 1 - 2 * turn],
        }[kind]
        flat = [{"node_id": f"{turn}/{at}", "title": name, "text": name} for at, name in enumerate(names)]
        return derive_now("p", "1", flat)

    def work(count: int) -> Callable[[], object]:
        before, after = tree(0, count), tree(1, count)
        return lambda: diff_of(before, after)

    assert grows_at_most(20, work, 5_000, 50_000)
    count = 50_000
    before, after = tree(0, count), tree(1, count)
    diff = diff_of(before, after)
    assert len(before) - len(diff.removed) + len(diff.added) == len(after)
    expected = {"all different": (count, count), "all the same": (0, 1)}.get(kind, (0, 0))
    assert (len(diff.added), len(diff.removed)) == expected
    assert len(diff.moved) == (count - 1 if kind == "reversed" else len(diff.moved))


# --- random revisions ----------------------------------------------------------------------------------------------------

words = st.sampled_from(["", "Notes", "Introduction", "a", "b", "c"])


@st.composite
def trees(draw: st.DrawFn) -> list[Json]:
    """A small tree of few words, so that much of it says the same."""
    roots: list[Json] = []
    made: list[Json] = []
    for at in range(draw(st.integers(0, 14))):
        fields = {name: draw(words) for name in draw(st.sets(st.sampled_from(["text", "summary"])))}
        one = node(f"n{at}", title=draw(words), **fields)
        if draw(st.booleans()):
            one["page_start"], one["page_end"] = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
        parent = draw(st.none() | st.sampled_from(made)) if made else None
        (roots if parent is None else parent["nodes"]).append(one)
        made.append(one)
    return roots


@st.composite
def revisions(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    """A tree, and the same after a few random edits; sometimes two trees that have nothing to do with each other."""
    before = draw(trees())
    if draw(st.integers(0, 9)) == 0:
        return before, draw(trees())
    after = copy.deepcopy(before)
    for turn in range(draw(st.integers(0, 5))):
        marks = [one["mark"] for one in walk(after)]
        mark = draw(st.sampled_from(marks)) if marks else None
        edit = draw(st.sampled_from(["insert", "remove", "unwrap", "edit", "move"])) if mark else "insert"
        if mark is None or edit == "insert":
            holder = after if mark is None else draw(st.sampled_from([after, find(after, mark)["nodes"]]))
            holder.insert(draw(st.integers(0, len(holder))), node(f"new {turn}", title=draw(words), text=draw(words)))
        elif edit == "remove":
            after = removed(after, mark)[0]
        elif edit == "unwrap":
            after = unwrapped(after, mark)[0]
        elif edit == "edit":
            find(after, mark)[draw(st.sampled_from(["title", "text", "summary"]))] = draw(words)
        else:
            below = {one["mark"] for one in walk([find(after, mark)])}
            to = draw(st.sampled_from([None, *[other for other in marks if other not in below]]))
            after = moved(after, mark, to, draw(st.integers(0, 3)))[0]
    return before, after


@settings(max_examples=400, deadline=None)
@generated(pair=revisions(), renumber=st.booleans())
def test_random_revisions(pair: tuple[list[Json], list[Json]], renumber: bool) -> None:
    """Lists are in document order without repetition, counts add up, the mirror is a mirror, and it all is reconstructible:
    what is neither added nor removed is the same number of nodes on both sides."""
    (before, _), (after, _) = derived(pair[0], renumber), derived(pair[1], renumber)
    diff, mirror = diff_of(before, after), diff_of(after, before)
    assert len(before) - len(diff.removed) + len(diff.added) == len(after)
    for name in EMPTY:
        ordinals = [(one.after or one.before).ordinal for one in getattr(diff, name)]
        assert ordinals == sorted(set(ordinals)), name
    gone = {one.before.ordinal for one in diff.removed if one.before}
    new = {one.after.ordinal for one in diff.added if one.after}
    for name in ("changed", "moved", "repaged"):
        for one in getattr(diff, name):
            assert one.before.ordinal not in gone and one.after.ordinal not in new
            ours, theirs = before[one.before.ordinal], after[one.after.ordinal]
            if name != "moved":
                assert one.fields
                assert all(getattr(ours, field) != getattr(theirs, field) for field in one.fields)
    opposite = {"added": "removed", "removed": "added"}
    turned = {
        name: {(one.after, one.before, one.fields) for one in getattr(mirror, opposite.get(name, name))} for name in EMPTY
    }
    assert turned == {name: {(one.before, one.after, one.fields) for one in getattr(diff, name)} for name in EMPTY}
    if not any(lists(diff)[name] for name in ("added", "removed", "changed", "moved")):
        assert [one.node_hash for one in before] == [one.node_hash for one in after]


def test_longest_increasing_subsequences() -> None:
    chosen = random.Random(7)
    for _ in range(200):
        values = chosen.sample(range(9), chosen.randint(0, 7))
        positions = longest_increasing(values)
        picked = [values[position] for position in positions]
        assert positions == sorted(positions) and picked == sorted(set(picked))
        subsets = ([values[i] for i in range(len(values)) if mask >> i & 1] for mask in range(2 ** len(values)))
        assert len(picked) == max(len(one) for one in subsets if one == sorted(one))


@pytest.mark.parametrize("salt", range(4))
def test_sections_that_are_wrapped_one_by_one_take_no_long_time(salt: int) -> None:
    def trees(count: int) -> tuple[list[Node], list[Node]]:
        end = {"node_id": "z", "title": "z", "text": f"{salt}"}  # decides which of the two is looked at first
        leaves = [{"node_id": f"{at}", "title": f"{at}", "text": f"{at}"} for at in range(count)]
        flat = [{"node_id": "p", "title": "p", "nodes": leaves}, end]
        wrapped = [{"node_id": f"w{at}", "title": f"w{at}", "nodes": [leaf]} for at, leaf in enumerate(leaves)]
        return derive_now("p", "1", flat), derive_now("p", "1", [*wrapped, end])

    def work(count: int) -> Callable[[], object]:
        before, after = trees(count)
        return lambda: diff_of(before, after)

    assert grows_at_most(20, work, 600, 6000)
    count = 6000
    diff = diff_of(*trees(count))
    assert (len(diff.added), len(diff.removed), len(diff.moved)) == (count, 1, count)
