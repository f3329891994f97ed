"""All topics of a run, one after the other, in a folder that is gone afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from treestore.bench.run import Say
from treestore.bench.scale import cold, growth, memory, pauses, recovery
from treestore.bench.session import MAX_ROUNDS, check_count, workplace
from treestore.bench.tables import Topic
from treestore.config import MAX_MEGABYTES
from treestore.errors import InvalidInput
from treestore.trees.rules import MAX_NODES

TOPICS = ("growth", "memory", "pauses", "recovery", "cold")

MOST_LOG_MB = 1000


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured. ``nodes`` are the sizes of the stores of growth and memory, ``caches`` and ``logs`` megabytes,
    ``document`` the nodes for pauses and cold starts, ``checkpoint_mb`` the log that makes a checkpoint due in the pauses,
    ``rounds`` the openings and cold starts of each kind, ``seconds`` how long is read for memory.
    ``drop_caches``: cold starts drop all that the system has in memory."""

    nodes: Sequence[int] = (10_000, 100_000, 1_000_000)
    caches: Sequence[int] = (64, 256)
    logs: Sequence[int] = (1, 4, 16, 64)
    document: int = 50_000
    checkpoint_mb: int = 16
    rounds: int = 3
    seconds: float = 10.0
    drop_caches: bool = False

    def check(self) -> None:
        """Raises InvalidInput for a number out of bounds."""
        for field, values, most in (
            ("nodes", self.nodes, MAX_NODES),
            ("caches", self.caches, MAX_MEGABYTES),
            ("logs", self.logs, MOST_LOG_MB),
            ("document", (self.document,), MAX_NODES),
            ("checkpoint_mb", (self.checkpoint_mb,), MOST_LOG_MB),
            ("rounds", (self.rounds,), MAX_ROUNDS),
        ):
            for value in values:
                check_count(value, most, field)
        if list(self.nodes) != sorted(set(self.nodes)):
            raise InvalidInput("must ascend", field="nodes")
        if not 0 < self.seconds <= 3600:
            raise InvalidInput(f"must be above 0 and at most 3600, not {self.seconds:g}", field="seconds")
        cold.check(self.drop_caches)


def measured(sizes: Sizes, topics: Sequence[str], folder: Path | None, say: Say) -> list[Topic]:
    """What some topics find. Raises InvalidInput for sizes out of bounds and a folder that can't be written to, and
    :class:`~treestore.bench.run.Mismatch` if an answer is wrong."""
    sizes.check()
    found: list[Topic | None] = []
    with workplace(folder) as place:
        if "growth" in topics or "memory" in topics:
            grown = growth.measured(sizes.nodes, sizes.rounds, place, say)  # memory reads the stores that it leaves
            found.append(grown if "growth" in topics else None)
        if "memory" in topics:
            found.append(memory.measured(sizes.nodes, sizes.caches, sizes.seconds, place, say))
        if "pauses" in topics:
            found.append(pauses.measured(sizes.document, sizes.checkpoint_mb, place, say))
        if "recovery" in topics:
            found.append(recovery.measured(sizes.logs, sizes.rounds, place, say))
        if "cold" in topics:
            found.append(cold.measured(sizes.document, sizes.rounds, sizes.drop_caches, place, say))
    return [topic for topic in found if topic is not None]
