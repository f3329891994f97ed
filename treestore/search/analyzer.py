"""From text to the terms that it is found by: the one analyzer of every store, for documents and for queries.

A text is cut into *chunks*: runs of letters, digits and combining marks, joined by single ``-``, ``.``, ``_`` or an apostrophe
(``M54.5``, ``LCD-L34220``, ``e-mail``) or by the commas of a number (``1,234``). Everything else separates. A chunk gives:

- a plain word: itself, folded, without English inflection (Snowball's stemmer); nothing if it is one of :data:`STOP_WORDS`;
- a compound: the whole, and its parts: ``lcd-l34220`` gives ``lcd-l34220``, ``lcd``, ``l34220`` and ``34220``. So a code is
  found whole and by part, and the whole, which few nodes have, counts more;
- writing without spaces (Chinese, Japanese, Thai…): single characters, and each two neighbours.

Folding: Unicode's compatibility decomposition (NFKD), no case, no accents of Latin, Greek and Cyrillic letters. So it makes no
difference in which normal form a text is written.

Postings are made of terms, so a change of any rule here, of the stemmer or of Unicode's tables makes stored ones wrong:
:data:`VERSION` names all three and is stored with each version. Raise its number with every change of what :func:`terms`
returns.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from itertools import chain

import Stemmer

from treestore.records import Outline

VERSION = f"1 snowball-{Stemmer.version()} unicode-{unicodedata.unidata_version}"
"""The version of the analyzer: that of the rules in this module, the stemmer's, and that of Python's Unicode tables."""

STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "being", "but", "by", "can", "could", "did", "do", "does",
    "for", "from", "had", "has", "have", "he", "her", "him", "his", "how", "i", "if", "in", "into", "is", "it",
    "its", "me", "my", "of", "on", "or", "our", "shall", "she", "should", "so", "such", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "to", "us", "was", "we", "were", "what",
    "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
})  # fmt: skip
"""English words that say nothing about a node. ``no`` and ``not`` are none of them: they do in a policy."""

MAX_TERM = 64
"""Characters of a term; a longer word is cut, in documents and in queries alike."""

_MAX_WHOLE = 40  # characters of a compound that is kept whole: a longer one is an address or a path, which nobody types
_MAX_WORD = 1000  # characters; what is longer without a space is cut into such, as some steps take the square of it
_KEPT_WORDS = 1 << 16  # words whose terms are kept at hand: 13 MB of plain words, up to 40 MB of codes
_KEPT_LENGTH = 40
_KEPT_TERMS = 8

# Combining marks are no word characters to `re`; without them the words of many scripts would fall apart at their vowels. A
# soft hyphen is where a word may be broken, and no more.
_LETTER = (
    r"\w\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u109f\u1dc0-\u1dff"
    r"\u20d0-\u20ff\u3099\u309a\u00ad"
)
_CHUNKS = re.compile(rf"[{_LETTER}]+(?:[-.'\u2019\u2010\u2011][{_LETTER}]+|(?<=[0-9]),[0-9]{{3}}(?!\w))*")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
_JOINING = "-._'"
JOINTS = re.compile(r"[-._'\u2019\u2010\u2011]")
"""What joins the parts of a compound."""

_RUNS = re.compile(r"[0-9]{3,}|[^\W\d_]{3,}")  # in a part such as l34220 or cpt72148
# Han, kana, Thai, Lao, Tibetan, Myanmar and Khmer.
_UNSPACED = re.compile(
    r"[\u0e00-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_stem = Stemmer.Stemmer("english", 0).stemWord


def terms(text: str) -> list[str]:
    """The terms of a text in the order of its words; a term is repeated as often as it occurs."""
    return list(chain.from_iterable(map(_terms_of.__getitem__, text.split())))


def spans(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Where the words of a text stand: ``(start, end, terms)`` in its order, the first word's first.

    ``text`` is to be in Unicode's normal form C, as ``unicodedata.normalize("NFC", text)`` gives it.
    """
    for found in _CHUNKS.finditer(text):
        of_chunk = _terms_of[found.group()]
        if of_chunk:
            yield found.start(), found.end(), of_chunk


def node_terms(node: Outline, text: str | None) -> list[str]:
    """All that a node is found by: the terms of its title, summaries and text."""
    parts = (node.title, node.summary, node.prefix_summary, text)
    return terms("\n".join([part for part in parts if part]))


class _Terms(dict[str, tuple[str, ...]]):
    """The terms of what stands between two spaces; made when it is first seen, and kept. Any thread may use it.

    Cutting at spaces and looking up is several times faster than finding chunks in a whole text, and no chunk has a space.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stemming = threading.Lock()  # a stemmer must not be used by two threads at once

    def __missing__(self, word: str) -> tuple[str, ...]:
        if len(word) > _MAX_WORD:
            cuts = [word[at : at + _MAX_WORD] for at in range(0, len(word), _MAX_WORD)]
            return tuple(chain.from_iterable([self.__missing__(cut) for cut in cuts]))
        normal = unicodedata.normalize("NFC", word)
        found = tuple([term[:MAX_TERM] for chunk in _CHUNKS.findall(normal) for term in _terms_of_chunk(chunk)])
        if len(word) <= _KEPT_LENGTH and len(found) <= _KEPT_TERMS:
            if len(self) >= _KEPT_WORDS:
                self.clear()
            self[word] = found
        return found

    def stem(self, word: str) -> str:
        """A word of ASCII letters without its English inflection."""
        with self._stemming:
            stemmed: str = _stem(word)
        return stemmed


_terms_of = _Terms()


def _terms_of_chunk(chunk: str) -> Iterator[str]:
    folded = plain(chunk)
    return _terms_without_spaces(folded) if _UNSPACED.search(folded) else _terms_of_plain(folded)


def plain(chunk: str) -> str:
    """A chunk without the differences that nobody types: case, accents, compatibility forms, and joints at its ends."""
    folded = chunk.replace(",", "").lower()
    if not folded.isascii():
        folded = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded.replace("\u00ad", "")).casefold())
        folded = unicodedata.normalize("NFC", folded).replace("\u2019", "'").replace("\u2010", "-").replace("\u2011", "-")
    return folded.strip(_JOINING)


def parts_of(whole: str) -> list[str]:
    """The parts of a plain chunk, between its joints. An English genitive is none: ``patient's`` has the part ``patient``."""
    return [part for part in JOINTS.split(whole.removesuffix("'s")) if part]


def _terms_of_plain(whole: str) -> Iterator[str]:
    parts = parts_of(whole)
    if len(parts) < 2:
        yield from (term for part in parts if part not in STOP_WORDS for term in _terms_of_part(part))
        return
    whole = whole.removesuffix("'s")
    if len(whole) <= _MAX_WHOLE:
        yield whole
    once = {*parts, whole, ""}
    yield from (piece for piece in whole.split("-") if piece not in once and len(piece) <= _MAX_WHOLE)
    for part in parts:
        if part not in STOP_WORDS and (len(part) > 1 or not part.isalpha()):
            yield from _terms_of_part(part)


def _terms_of_part(part: str) -> Iterator[str]:
    """A word's stem; of letters mixed with digits the whole and the longer runs of each."""
    if part.isalpha():
        yield _terms_of.stem(part) if part.isascii() else part
        return
    yield part
    if not part.isdecimal():
        yield from (_terms_of.stem(run) if run.isascii() and run.isalpha() else run for run in _RUNS.findall(part))


def _terms_without_spaces(chunk: str) -> Iterator[str]:
    end = 0
    for run in _UNSPACED.finditer(chunk):
        if run.start() > end:
            yield from _terms_of_plain(chunk[end : run.start()].strip(_JOINING))
        characters = run.group()
        yield from characters
        yield from (characters[i : i + 2] for i in range(len(characters) - 1))
        end = run.end()
    if end < len(chunk):
        yield from _terms_of_plain(chunk[end:].strip(_JOINING))
