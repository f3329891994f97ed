"""What a search asks for, read from what was typed; and which versions can be asked.

A query is words, nothing else: quotes, brackets and operators separate words as all punctuation does. A node is found by any
of them. Words of letters are found by their stem; ``e-mail``, which is made of parts, as a whole and by each part.

A word with a digit is a code or a number, and names one thing: it is looked for as a whole. If no node has it, it stands for
those that begin with it (``7214`` for ``72148``). If there are none, for its parts that could name the thing too: those of
three characters or more with a digit (of ``M54.59``: ``m54``), but not, for a policy ``LCD-L99999`` that is not there, all the
others that are LCDs.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from treestore.errors import InvalidInput, NotSearchable
from treestore.operations import Query, Word
from treestore.records import Version
from treestore.search import analyzer
from treestore.trees import rules

MAX_TERMS = 1000
"""Different terms of a query; more is a text to be compared with, not a question."""

MAX_CHARACTERS = 20_000
"""The length of a query."""

MAX_BEGINNING = 32
"""So many terms at most stand for a code that no node has whole, the first ones by code points."""

_LEAST_CODE = 3
_KEPT_CHARACTERS = 500  # of a query that is kept at hand as it was read

_log = logging.getLogger(__name__)


def parse(text: object) -> Query:
    """The words of a query and their terms. Stop words have none and are left out.

    Raises InvalidInput for anything but a string that can be encoded in UTF-8, for more than :data:`MAX_CHARACTERS` characters
    and for more than :data:`MAX_TERMS` terms.
    """
    typed = rules.check_raw_text(text, "query")
    if len(typed) > MAX_CHARACTERS:
        raise InvalidInput(f"is {len(typed)} characters long, at most {MAX_CHARACTERS} are allowed", field="query")
    return _parsed(typed) if len(typed) <= _KEPT_CHARACTERS else _parsed.__wrapped__(typed)


@lru_cache(maxsize=64)  # the same is asked of several documents, or again for more of what it finds
def _parsed(typed: str) -> Query:
    typed = unicodedata.normalize("NFC", typed)
    words: dict[tuple[str, ...], Word] = {}
    for start, end, terms in analyzer.spans(typed):
        if terms not in words:
            words[terms] = _word(typed[start:end], terms)
    count = len({term for terms in words for term in terms})
    if count > MAX_TERMS:
        raise InvalidInput(f"has {count} different words and parts of words, at most {MAX_TERMS} are allowed", field="query")
    return Query(tuple(words.values()))


def _word(typed: str, terms: Sequence[str]) -> Word:
    folded = analyzer.plain(typed).removesuffix("'s")[: analyzer.MAX_TERM]
    whole = terms[0] if len(terms) == 1 or terms[0] == folded else ""
    pieces = [piece for piece in analyzer.JOINTS.split(typed) if piece]
    return Word(typed, whole, tuple((_as_typed(term, pieces), term) for term in dict.fromkeys(terms) if term != whole))


def _as_typed(term: str, pieces: Sequence[str]) -> str:
    """What was typed for a term that is a part of a word: exactly, or the piece that it is the stem of."""
    for piece in pieces:
        at = piece.lower().find(term)
        if at >= 0 and len(piece.lower()) == len(piece):
            return piece[at : at + len(term)]
    return next((piece for piece in pieces if term in analyzer.terms(piece)), term)


class Wanted(NamedTuple):
    """What is looked for because of a word: any of ``wholes`` in its place, and any of ``parts``, each beside what was typed
    for it."""

    typed: str
    wholes: tuple[str, ...]
    parts: tuple[tuple[str, str], ...] = ()


def wanted(
    query: Query, exists: Callable[[str], bool], beginning: Callable[[str], Iterable[str]]
) -> list[Wanted]:
    """What to look for where ``exists`` says whether any node has a term and ``beginning`` gives, in order, the terms that
    nodes have and that begin so."""
    found: list[Wanted] = []
    room = MAX_TERMS - sum(1 + len(word.parts) for word in query.words)
    for word in query.words:
        if not word.whole or not _names_one_thing(word.whole) or exists(word.whole):
            parts = () if word.whole and _names_one_thing(word.whole) else word.parts
            found.append(Wanted(word.typed, (word.whole,) if word.whole else (), parts))
            continue
        instead: tuple[str, ...] = ()
        if len(word.whole) >= _LEAST_CODE and room > 0:
            instead = tuple(islice(beginning(word.whole), min(MAX_BEGINNING, room)))
            room -= len(instead)
        telling = [part for part in word.parts if len(part[1]) >= _LEAST_CODE and _names_one_thing(part[1])]
        found.append(Wanted(word.typed, instead, () if instead else tuple(telling)))
    return found


def _names_one_thing(term: str) -> bool:
    return any(map(str.isdigit, term))


def distinct(words: Iterable[Wanted]) -> list[str]:
    """All terms, each once, in their order: that in which scores are summed."""
    return list(dict.fromkeys(term for word in words for term in (*word.wholes, *(term for _, term in word.parts))))


def words_of(words: Iterable[Wanted], found: Iterable[str]) -> tuple[str, ...]:
    """The words, as typed, that a node has which has these terms; where it does not have the whole, the parts that it has."""
    having = set(found)
    names: list[str] = []
    for word in words:
        if not having.isdisjoint(word.wholes):
            names.append(word.typed)
        else:
            names += [typed for typed, term in word.parts if term in having]
    return tuple(dict.fromkeys(names))


def say_stale(analyzers: Mapping[str, int]) -> None:
    """Tell whoever opens a store what was made searchable by another version of the analyzer. ``analyzers``: by version, how
    many versions of documents have its postings."""
    for made, count in analyzers.items():
        if made != analyzer.VERSION:
            _log.warning(
                "%d %s made searchable by analyzer %r, this is %r: run 'treestore reindex' before searching",
                count,
                "version was" if count == 1 else "versions were",
                made,
                analyzer.VERSION,
            )


def is_stale(version: Version) -> bool:
    """Whether a version's postings were made by another version of the analyzer."""
    return version.analyzer not in ("", analyzer.VERSION)


def check_searchable(version: Version) -> None:
    """Raise NotSearchable for a version that can't be searched, saying what to do."""
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if not version.analyzer:
        raise NotSearchable(f"{name} was stored without keyword search; store it with searchable=True")
    if is_stale(version):
        made = f"was made searchable by analyzer {version.analyzer!r}, this is {analyzer.VERSION!r}"
        raise NotSearchable(f"{name} {made}; run 'treestore reindex'")
