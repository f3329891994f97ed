"""The first questions of a new process, with the files in the system's memory and, where possible, dropped from it.

Each contender's store is filled once, with search. Then a process for each round loads the modules, has the files dropped,
opens the store and asks for one node, one subtree and one search: each the first thing of its kind. The answers are checked
outside of it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import msgspec

from treestore.bench import contenders, corpus, truth
from treestore.bench.cases import LMDB, SQLITE, TREESTORE
from treestore.bench.contender import BEST, Contender, Hit, Place
from treestore.bench.corpus import Corpus, PlainNode
from treestore.bench.run import Mismatch, Say
from treestore.bench.scale.child import elsewhere
from treestore.bench.tables import Column, Table, Topic, Value
from treestore.errors import InvalidInput

STEPS = ("Open", "The first node", "The first subtree", "The first search")
WHO = (TREESTORE, SQLITE, LMDB)

Dropping = Literal["nothing", "files", "all"]

_DROP = Path("/proc/sys/vm/drop_caches")
_HOW = {"files": "posix_fadvise(DONTNEED) on the files of the store", "all": f"{_DROP}, so that nothing is in memory"}


class First(msgspec.Struct, frozen=True):
    """Seconds of each step, and the answers."""

    seconds: dict[str, float]
    node: PlainNode
    subtree: list[PlainNode]
    hits: list[Hit]


def _kind(name: str) -> type[Contender]:
    return next(kind for kind in contenders.available() if kind.name == name)


@elsewhere
def fill(folder: str, name: str, nodes: int) -> None:
    """Store the document, with search where the store has one."""
    store = _kind(name)(Place(Path(folder)))
    verb = "store_searchable" if "store_searchable" in store.verbs else "store"
    if store.answer(verb, corpus.make(nodes).tree) != "created" and name != TREESTORE:
        raise Mismatch(f"{name} did not create the document")
    store.prepare()
    store.close()


@elsewhere
def ask(folder: str, name: str, dropping: Dropping, node_id: str, top: str, words: tuple[str, ...]) -> First:
    """Open and ask."""
    kind = _kind(name)
    with tempfile.TemporaryDirectory() as other:
        kind(Place(Path(other))).close()  # all modules are loaded
    drop(Path(folder), dropping)
    seconds: dict[str, float] = {}
    began = perf_counter()

    def done(step: str) -> None:
        nonlocal began
        seconds[step] = perf_counter() - began
        began = perf_counter()

    store = kind(Place(Path(folder)))
    done(STEPS[0])
    node = store.verbs["node"](node_id)
    done(STEPS[1])
    subtree = store.verbs["subtree"](top)
    done(STEPS[2])
    hits: Any = []
    if "search" in store.verbs:
        question = store.ready("search", words)
        began = perf_counter()
        hits = store.verbs["search"](question)
        done(STEPS[3])
    store.close()
    return First(seconds, truth.plain(node), truth.plain(subtree), truth.hits(hits))


def drop(folder: Path, how: Dropping) -> None:
    """Drop the files of a folder from the system's memory, or everything that lies there."""
    if how == "nothing":
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    if how == "all":
        os.sync()
        _DROP.write_text("3")


def check(everything: bool) -> None:
    """Raises InvalidInput if the system's memory is to be dropped and can't be."""
    if everything and not os.access(_DROP, os.W_OK):
        raise InvalidInput(f"needs a {_DROP} that may be written to, as by root", field="--drop-caches")


def measured(nodes: int, rounds: int, everything: bool, folder: Path, say: Say) -> Topic:
    """One table. ``everything``: not the stores' files alone are dropped from the system's memory, but all that is there."""
    known = corpus.make(nodes)
    here = [kind.name for kind in contenders.available()]
    who = [name for name in WHO if name in here]
    for name in who:
        say(f"cold: filling {name}")
        (folder / f"cold-{name}").mkdir()
        fill(str(folder / f"cold-{name}"), name, nodes)
    rows: list[tuple[Value, ...]] = []
    dropping: Dropping = "all" if everything else "files"
    ways: tuple[tuple[Dropping, str], ...] = (("nothing", "in memory"), (dropping, "dropped"))
    for how, called in ways if hasattr(os, "posix_fadvise") else ways[:1]:
        say(f"cold: new processes, files {called}")
        found = {name: [_asked(known, folder, name, how, number) for number in range(rounds)] for name in who}
        for step in STEPS:
            times = [[one.seconds[step] for one in found[name] if step in one.seconds] for name in who]
            rows.append((f"{step}, {called}", *(median(each) if each else None for each in times)))
    notes = (
        f"Medians of {rounds} new processes, {nodes:,} nodes, with search. Modules are loaded before.",
        f"In memory: the files are in the system's memory. Dropped: by {_HOW[dropping]}.",
    )
    columns = (Column("WHAT"), *(Column(name.upper(), "seconds") for name in who))
    return Topic("Cold starts", (Table("The first questions of a process", columns, tuple(rows)),), notes)


def _asked(known: Corpus, folder: Path, name: str, dropping: Dropping, number: int) -> First:
    nodes = known.tree.nodes
    node = nodes[(number * 2 + 1) * 7919 % len(nodes)]
    tops = [one for one in nodes if one.depth == 1] or [nodes[0]]
    top, words = tops[number % len(tops)], known.searches["2 words: rare + common"][number]
    first = ask(str(folder / f"cold-{name}"), name, dropping, node.node_id, top.node_id, words)
    wrong = truth.difference(node, first.node) or truth.difference(truth.subtree(known, top.node_id), first.subtree)
    scoring = _kind(name).scoring
    if scoring is not None:
        wrong = wrong or truth.wrong_hits(known, words, first.hits, scoring, BEST)
    if wrong:
        raise Mismatch(f"{name} {wrong}")
    return first
