"""Excerpts: the place in a text that says most about a query, with the matching words marked.

Words match as they do in a search, by the analyzer's terms: "therapies" marks "Therapy", and "l34220" marks "LCD-L34220".
The beginning of a code that the text does not have whole ("l342") marks those that it has. Nothing is read or stored here; an
excerpt is computed from a text that the caller has.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from treestore.errors import InvalidInput
from treestore.records import Outline
from treestore.search import analyzer
from treestore.search.query import distinct, parse, wanted
from treestore.trees import rules

CUT = "…"
"""Stands where an excerpt leaves something out."""

LEAST_WIDTH = 20
_WORD = 24  # characters of a word that is rather left out than cut
_LEAD = 4  # a fourth of the room beside the matches goes before them, the rest after them


class Snippet(NamedTuple):
    """An excerpt on one line: runs of white space are one space, and it is in Unicode's normal form C.

    ``marks`` are the ``(start, end)`` of the matching words in ``text``, in order, without overlaps. ``found`` is the number
    of different terms of the query among them; 0 where the excerpt is just the beginning.
    """

    text: str
    marks: tuple[tuple[int, int], ...]
    found: int


class _Match(NamedTuple):
    """A place in the text with terms of the query: where it is, and which they are."""

    start: int
    end: int
    terms: frozenset[str]


def snippet(text: str, query: str, *, width: int | None = 160) -> Snippet:
    """The excerpt of at most ``width`` characters with the most different terms of the query, then the most matching words;
    of equal ones the first. It is cut at spaces, with an ellipsis there. ``None``: the whole text.

    Where nothing matches it is the beginning of the text. Raises InvalidInput for what is no text that can be stored, for a
    width below 20, and for a query that a search refuses.
    """
    if width is not None:
        _check_width(width)
    whole = " ".join(unicodedata.normalize("NFC", rules.check_raw_text(text, "text")).split())
    matches = list(_matches(whole, rules.check_raw_text(query, "query")))
    if width is None or len(whole) <= width:
        return _excerpt(whole, 0, len(whole), matches)
    first, last = _densest(matches, width - 2 * len(CUT))
    return _excerpt(whole, *_borders(whole, first, last, width), matches)


def _check_width(width: object) -> None:
    if isinstance(width, bool) or not isinstance(width, int):
        raise InvalidInput(f"must be an integer, not {rules.shown(width)}", field="width")
    if width < LEAST_WIDTH:
        raise InvalidInput(f"must be at least {LEAST_WIDTH}, not {rules.shown(width)}", field="width")


def best_snippet(node: Outline, query: str, *, width: int = 160) -> Snippet:
    """The excerpt of a node's text or summaries that matches best, of equal ones the text's. Where only the title matches it
    is the beginning of the summary, or of the text. Empty for a node that has a title alone.

    Of an outline, which has no text, it is of the summaries. Raises InvalidInput as :func:`snippet` does.
    """
    if not isinstance(node, Outline):
        raise InvalidInput(f"must be a Node or an Outline, not {rules.shown(node)}", field="node")
    _parsed(rules.check_raw_text(query, "query"))
    _check_width(width)
    texts = [text for text in (getattr(node, "text", None), node.summary, node.prefix_summary) if text]
    excerpts = [snippet(text, query, width=width) for text in texts]
    best = max(excerpts, key=lambda excerpt: (excerpt.found, len(excerpt.marks)), default=Snippet("", (), 0))
    return best if best.found or not node.summary else snippet(node.summary, query, width=width)


_parsed = lru_cache(maxsize=16)(parse)  # a query is the same for all hits of a search


def _matches(whole: str, query: str) -> Iterator[_Match]:
    """The matching words; in writing without spaces, where a word is a whole clause, its matching characters."""
    words = list(analyzer.spans(whole))
    known = frozenset(chain.from_iterable([terms for _, _, terms in words]))

    def beginning(code: str) -> list[str]:
        return sorted(term for term in known if term.startswith(code))

    sought = frozenset(distinct(wanted(_parsed(query), known.__contains__, beginning)))
    matching = {terms: sought.intersection(terms) for terms in {terms for _, _, terms in words}}
    for start, end, terms in words:
        common = matching[terms]
        if not common:
            continue
        word = whole[start:end]
        parts = [term for term in common if term in word and term.isalpha() and term.upper() == term.lower()]
        if not parts:
            yield _Match(start, end, common)
            continue
        for left, right in _runs(word, parts):
            within = word[left:right]
            yield _Match(start + left, start + right, frozenset(term for term in parts if term in within))


def _runs(word: str, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the parts of a word stand, those that touch or overlap as one."""
    covered = bytearray(len(word))
    for part in parts:
        at = word.find(part)
        while at >= 0:
            covered[at : at + len(part)] = b"\1" * len(part)
            at = word.find(part, at + 1)
    at = covered.find(1)
    while at >= 0:
        end = covered.find(0, at)
        end = len(word) if end < 0 else end
        yield at, end
        at = covered.find(1, end)


def _densest(matches: Sequence[_Match], width: int) -> tuple[int, int]:
    """From where to where the best matches stand that lie within ``width`` characters: one pass with two ends."""
    best, window = (0, 0), (0, 0)
    terms: Counter[str] = Counter()
    beyond = 0
    for at, match in enumerate(matches):
        while beyond < len(matches) and (beyond == at or matches[beyond].end - match.start <= width):
            terms.update(matches[beyond].terms)
            beyond += 1
        score = (len(terms), beyond - at)
        if score > best:
            best, window = score, (match.start, matches[beyond - 1].end)
        for term in match.terms:
            terms[term] -= 1
            if not terms[term]:
                del terms[term]
    return window


def _borders(whole: str, first: int, last: int, width: int) -> tuple[int, int]:
    """The excerpt's ends: around the matches, at spaces where there are some, within ``width`` with the signs of the cuts."""
    room = max(width - 2 * len(CUT) - (last - first), 0)
    start = max(first - room // _LEAD, 0)
    end = min(start + width - 2 * len(CUT), len(whole))
    start = max(min(start, end - width + 2 * len(CUT)), 0)
    if start > 0:
        space = whole.find(" ", start - 1, min(first, start + _WORD))
        start = space + 1 if space >= 0 else start
        while start < first and unicodedata.combining(whole[start]):
            start += 1
    if end < len(whole) and whole[end] != " ":
        space = whole.rfind(" ", max(last, end - _WORD), end)
        end = space if space > start else end
    return start, end


def _excerpt(whole: str, start: int, end: int, matches: Sequence[_Match]) -> Snippet:
    """The text between two places, marked."""
    before = CUT if start else ""
    shift = len(before) - start
    within = [match for match in matches if match.start < end and match.end > start]
    marks = tuple((max(match.start, start) + shift, min(match.end, end) + shift) for match in within)
    found = frozenset[str]().union(*[match.terms for match in within])
    return Snippet(before + whole[start:end] + (CUT if end < len(whole) else ""), marks, len(found))
