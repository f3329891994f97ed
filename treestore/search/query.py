"""What a search asks for, read from what was typed; and which versions can be asked.

A query is words, nothing else: quotes, brackets and operators separate words as all punctuation does. A node is found by any
of them. A number or code of three characters or more that no node has whole stands for those that begin with it.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from treestore.errors import InvalidInput, NotSearchable
from treestore.operations import Query
from treestore.records import Version
from treestore.search import analyzer
from treestore.trees import rules

MAX_TERMS = 1000
"""Different terms of a query; more is a text to be compared with, not a question."""

MAX_BEGINNING = 32
"""So many terms at most stand for a code that no node has whole, the first ones by code points."""

_LEAST_CODE = 3

_log = logging.getLogger(__name__)


def parse(text: object) -> Query:
    """The words of a query and their terms. Stop words have none and are left out.

    Raises InvalidInput for anything but a string that can be encoded in UTF-8, and for more than :data:`MAX_TERMS` terms.
    """
    typed = unicodedata.normalize("NFC", rules.check_raw_text(text, "query"))
    words: dict[tuple[str, ...], str] = {}
    for start, end, terms in analyzer.spans(typed):
        words.setdefault(terms, typed[start:end])
    query = Query(tuple(words.values()), tuple(words))
    count = len(distinct(query.terms))
    if count > MAX_TERMS:
        raise InvalidInput(f"has {count} different words and parts of words, at most {MAX_TERMS} are allowed", field="query")
    return query


def distinct(terms: Iterable[Sequence[str]]) -> list[str]:
    """All terms, each once, in their order: that in which scores are summed."""
    return list(dict.fromkeys(term for of_word in terms for term in of_word))


def with_beginnings(query: Query, beginning: Callable[[str], Sequence[str] | None]) -> list[tuple[str, ...]]:
    """The terms of each word. Where a whole word is a code that no node has, those are put in its place that ``beginning``
    gives for it in order (None: some node has it), at most :data:`MAX_BEGINNING`."""
    words: list[tuple[str, ...]] = []
    for whole, *parts in query.terms:
        code = len(whole) >= _LEAST_CODE and not whole.isalpha()
        instead = beginning(whole) if code else None
        words.append((whole, *parts) if instead is None else (*instead[:MAX_BEGINNING], *parts))
    return words


def words_of(query: Query, terms: Sequence[Sequence[str]], found: Iterable[str]) -> tuple[str, ...]:
    """The words of a query, as typed, that a node has which has these terms. ``terms``: those of each word."""
    having = set(found)
    return tuple(word for word, of_word in zip(query.words, terms, strict=True) if not having.isdisjoint(of_word))


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


def check_searchable(version: Version) -> None:
    """Raise NotSearchable for a version that can't be searched, saying what to do."""
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if not version.analyzer:
        raise NotSearchable(f"{name} was stored without keyword search; store it with searchable=True")
    if version.analyzer != analyzer.VERSION:
        made = f"was made searchable by analyzer {version.analyzer!r}, this is {analyzer.VERSION!r}"
        raise NotSearchable(f"{name} {made}; run 'treestore reindex'")
