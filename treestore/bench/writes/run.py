"""A whole run: all topics in one folder, one after the other."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import msgspec

from treestore.bench.run import Say
from treestore.bench.session import check_count, workplace
from treestore.bench.tables import Topic
from treestore.bench.writes import amounts, beside, groups, stages
from treestore.bench.writes.amounts import SECTIONS
from treestore.bench.writes.beside import SYNCS, WRITERS
from treestore.bench.writes.given import Author
from treestore.bench.writes.groups import CALLERS
from treestore.errors import InvalidInput
from treestore.trees.rules import MAX_NODES

COUNTED_NODES = 5_000
MOST = 100_000
MOST_CALLERS = 64
MOST_SECONDS = 60.0
GROUPS, STAGES, AMOUNTS, BESIDE = "groups", "stages", "amounts", "beside"
TOPICS = (GROUPS, STAGES, AMOUNTS, BESIDE)


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured: ``groups`` of each kind in each of the ``rounds``, by so many ``callers``; the ``nodes`` of the
    whole tree (bytes are counted of one of :data:`COUNTED_NODES` at most, and of versions of :data:`SECTIONS` at most); the
    ``seconds`` of each measurement beside readers, the number of ``writers``, and the least seconds of a sync there."""

    groups: int = 384
    rounds: int = 3
    callers: tuple[int, ...] = CALLERS
    nodes: int = 20_000
    seconds: float = 1.2
    writers: tuple[int, ...] = WRITERS
    syncs: tuple[float, ...] = SYNCS


def run(sizes: Sizes, folder: Path | None, topics: Sequence[str], say: Say = lambda _: None) -> list[Topic]:
    """Measure these topics in a new folder below ``folder``, which is removed at the end. Raises InvalidInput for a number out
    of bounds, and Mismatch if a store has not what it was given."""
    check_count(sizes.groups, MOST, "groups")
    check_count(sizes.rounds, 100, "rounds")
    check_count(sizes.nodes, MAX_NODES, "nodes")
    for count in (*sizes.callers, *sizes.writers):
        check_count(count, MOST_CALLERS, "callers")
    for sync in sizes.syncs:
        if not 0 <= sync <= 1:
            raise InvalidInput(f"must be from 0 to 1000 ms, not {sync * 1e3:g}", field="syncs")
    if not 0 < sizes.seconds <= MOST_SECONDS:
        raise InvalidInput(f"must be above 0 and at most {MOST_SECONDS:g}, not {sizes.seconds:g}", field="seconds")
    author = Author()
    counted, sections = min(sizes.nodes, COUNTED_NODES), min(sizes.nodes, SECTIONS)
    with workplace(folder) as place:
        measures = {
            GROUPS: lambda: groups.measure(author, place, sizes.groups, sizes.rounds, sizes.callers, say),
            STAGES: lambda: stages.measure(author, place, sizes.nodes, sizes.rounds, say),
            AMOUNTS: lambda: amounts.measure(author, place, sizes.groups, counted, sections, say),
            BESIDE: lambda: beside.measure(author, place, sizes.seconds, sizes.writers, sizes.syncs, say),
        }
        try:
            return [measures[topic]() for topic in topics]
        finally:
            gc.unfreeze()
