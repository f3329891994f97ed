"""One run: every contender gets the same document and must give the same answers; then the times are taken in turn.

All stores are open at once. In each round each case is measured on each contender, one after the other, and who begins
changes from round to round, so what else the machine does meanwhile hits all alike. Caches are warm: all questions were asked
before, when the answers were checked; but not in the cases of what is read for the first time, whose rounds come last.
Python's garbage collector stays on. Before each measurement it clears up, and the corpus and the warm caches are taken out of
its sight, so that nobody pays for what another one holds or left behind.
"""

from __future__ import annotations

import gc
import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import msgspec

from treestore.bench import truth
from treestore.bench.cases import CASES, Case
from treestore.bench.contender import ALL, BEST, Contender, Place
from treestore.bench.corpus import AMENDMENT, Corpus

SEARCHES_CHECKED_WHOLE = 5
"""Of each kind of search, so many are checked for all that they find, not for the best alone."""


class Mismatch(Exception):
    """A contender gave an answer that is not the right one. The message says which contender, and to what."""


class Times(msgspec.Struct, frozen=True):
    """Seconds for one unit of a case in each round, in their order."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Half of the rounds lie between these two."""
        if len(self.rounds) == 1:
            return self.rounds[0], self.rounds[0]
        first, _, third = quantiles(self.rounds, n=4, method="inclusive")
        return first, third


class Measured(msgspec.Struct, frozen=True):
    """A case, and the times of the contenders that have its verb, by their names."""

    case: Case
    times: dict[str, Times]


class Run(msgspec.Struct, frozen=True):
    """All that was measured, in the order of the cases. ``postgres`` is the version of the server, if PostgreSQL took part."""

    nodes: int
    rounds: int
    contenders: tuple[str, ...]
    measured: tuple[Measured, ...]
    postgres: str | None = None


Say = Callable[[str], object]


def run(
    corpus: Corpus,
    contenders: Sequence[type[Contender]],
    folder: Path,
    rounds: int,
    *,
    server: str | None = None,
    cases: Sequence[Case] = CASES,
    say: Say = lambda _: None,
) -> Run:
    """Fill, check, and measure. ``folder`` is empty, and is not cleared up. ``server`` is the URL of a PostgreSQL server, for
    contenders that need one. ``say`` is told what is being done. A case that has no question about this corpus is left out.

    Raises Mismatch as soon as an answer is wrong.
    """
    cases = [case for case in cases if case.questions(corpus, "check")]
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        take_out_of_sight()
        opened: list[Contender] = []
        for kind in contenders:
            say(f"filling {kind.name}")
            opened.append(_filled(stack, kind, Place(folder / f"{len(opened)}", server), corpus))
        for case in cases:
            say(f"checking the answers: {case.what}")
            for contender in opened:
                _check(case, contender, corpus)
        take_out_of_sight()
        samples: dict[tuple[str, str], list[float]] = {}
        for first in (False, True):  # what has to forget comes last: the others would have to warm up again
            some = [case for case in cases if case.first == first]
            for number in range(rounds if some else 0):
                say(f"round {number + 1} of {rounds}{', read for the first time' if first else ''}")
                turned = opened[number % len(opened) :] + opened[: number % len(opened)]
                for case, contender in itertools.product(some, turned):
                    if case.verb in contender.verbs:
                        if case.fresh:
                            place = Place(folder / "fresh", server)
                            taken = _measure_fresh(case, type(contender), corpus, place, check=number == 0)
                        else:
                            taken = _measure(case, contender, corpus, f"round {number}")
                        samples.setdefault((case.name, contender.name), []).append(taken)
    names = tuple(kind.name for kind in contenders)
    measured = [Measured(case, _times_of(case, names, samples)) for case in cases]
    return Run(len(corpus.tree.nodes), rounds, names, tuple(entry for entry in measured if entry.times))


def take_out_of_sight() -> None:
    """Hide all that there is from the garbage collector, until ``gc.unfreeze``."""
    gc.collect()
    gc.freeze()


def _times_of(case: Case, names: Sequence[str], samples: dict[tuple[str, str], list[float]]) -> dict[str, Times]:
    found = {name: samples[case.name, name] for name in names if (case.name, name) in samples}
    return {name: Times(tuple(rounds)) for name, rounds in found.items()}


def _filled(stack: ExitStack, kind: type[Contender], place: Place, corpus: Corpus) -> Contender:
    place.folder.mkdir()
    contender = kind(place)
    stack.callback(contender.close)
    if "store" in contender.verbs:
        contender.answer("store" if kind.scoring is None else "store_searchable", corpus.tree)
        if "diff" in contender.verbs:
            contender.answer("store", corpus.edited)
        for tree in corpus.history:
            contender.answer("store", tree)
        contender.prepare()
    return contender


# --- checking ------------------------------------------------------------------------------------------------------------


def _check(case: Case, contender: Contender, corpus: Corpus) -> None:
    if case.verb not in contender.verbs or case.fresh:  # a fresh store is read after its first measurement
        return
    for number, question in enumerate(case.questions(corpus, "check")):
        answer = contender.answer(case.verb, question)
        if case.expected is not None:
            wrong = truth.difference(case.expected(corpus, question), answer)
        elif case.amends:
            wrong = _wrong_amendment(contender, corpus, *question)
        else:
            wrong = _wrong_search(contender, corpus, question, answer, number < SEARCHES_CHECKED_WHOLE)
        if wrong is not None:
            raise Mismatch(f"{contender.name}, {case.what}: the answer to {question!r:.60} {wrong}")
    if case.amends:
        contender.settle()


def _wrong_search(
    contender: Contender, corpus: Corpus, words: tuple[str, ...], answer: Sequence[object], whole: bool
) -> str | None:
    assert contender.scoring is not None
    wrong = truth.wrong_hits(corpus, words, truth.hits(answer), contender.scoring, BEST)
    if wrong is None and whole:
        found = truth.hits(contender.answer("search_all", words))
        wrong = truth.wrong_hits(corpus, words, found, contender.scoring, ALL)
    return wrong


def _wrong_amendment(contender: Contender, corpus: Corpus, node_id: str, text: str) -> str | None:
    """What is wrong after a node was given a text: it must say so, and be found by what is new in it, if that is new."""
    expected = msgspec.structs.replace(truth.node(corpus, node_id), text=text)
    wrong = truth.difference(expected, contender.answer("node", node_id))
    if wrong is None:
        found = [hit.node.node_id for hit in truth.hits(contender.answer("search_all", (AMENDMENT,)))]
        wrong = truth.difference([node_id] if AMENDMENT in text else [], found)
    return wrong


# --- measuring -----------------------------------------------------------------------------------------------------------


def _measure(case: Case, contender: Contender, corpus: Corpus, label: str) -> float:
    """Seconds for one unit."""
    questions = case.questions(corpus, label)
    ready = [contender.ready(case.verb, question) for question in questions]
    if case.first:
        contender.forget()
    gc.collect()
    taken = contender.seconds(case.verb, ready) / case.units(questions)
    if case.amends:
        contender.settle()
    return taken


def _measure_fresh(case: Case, kind: type[Contender], corpus: Corpus, place: Place, *, check: bool) -> float:
    """The same in a new store, whose place is removed. ``check``: what was stored is read and compared."""
    place.folder.mkdir()
    try:
        contender = kind(place)
        try:
            taken = _measure(case, contender, corpus, "fresh")
            version_id = corpus.tree.version.version_id
            wrong = truth.difference(truth.whole(corpus, version_id), contender.answer("whole", version_id)) if check else None
        finally:
            contender.close()
    finally:
        shutil.rmtree(place.folder)
    if wrong is not None:
        raise Mismatch(f"{contender.name}, {case.what}: what was stored {wrong}")
    return taken
