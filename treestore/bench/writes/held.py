"""Whether what was written is there: a closed store is opened again and compared, document by document."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from treestore.bench.corpus import VERSION
from treestore.bench.run import Mismatch
from treestore.bench.writes.given import Held, Write, held_after
from treestore.bench.writes.writers import DiskAlone, EachAlone, Gathered, Writer, opened_again

_TEXTS = """
SELECT version.policy_id, node.text FROM version JOIN node ON node.version = version.number ORDER BY version.number, node.id"""
_FOUND = """
SELECT version.policy_id, node.node_id FROM node_words JOIN node ON node.id = node_words.rowid
JOIN version ON version.number = node.version WHERE node_words MATCH ?"""


def check(writer: type[Writer], folder: Path, writes: Iterable[Write]) -> None:
    """Raise Mismatch unless the closed store in a folder holds what these writes leave, and nothing else."""
    if writer is DiskAlone:  # it writes over itself and knows no documents
        return
    expected = held_after(writes)
    look = _wrong_in_sqlite if writer in (EachAlone, Gathered) else _wrong_in_treestore
    wrong = look(folder, expected)
    if wrong is not None:
        raise Mismatch(f"{writer.name}, opened again: {wrong}")


def _wrong_in_treestore(folder: Path, expected: dict[str, Held]) -> str | None:
    with opened_again(folder) as store:
        names = {document.policy_id for document in store.documents.list_documents()}
        if names != expected.keys():
            return _wrong_names(names, expected)
        for policy_id, held in expected.items():
            nodes = store.documents.get_document(policy_id, version_id=VERSION).nodes
            if [node.text for node in nodes] != held.texts:
                return f"{policy_id} says something else"
            if held.found is not None:
                word, node_id = held.found
                hits = store.documents.search_nodes(policy_id, word, version_id=VERSION)
                if [hit.node.node_id for hit in hits] != [node_id]:
                    return f"{word!r} is not found in node {node_id!r} of {policy_id}"
    return None


def _wrong_in_sqlite(folder: Path, expected: dict[str, Held]) -> str | None:
    texts: dict[str, list[str]] = {}
    with closing(sqlite3.connect(folder / "database")) as connection:
        for policy_id, text in connection.execute(_TEXTS):
            texts.setdefault(policy_id, []).append(text)
        if texts.keys() != expected.keys():
            return _wrong_names(texts.keys(), expected)
        for policy_id, held in expected.items():
            if texts[policy_id] != held.texts:
                return f"{policy_id} says something else"
            if held.found is not None:
                word, node_id = held.found
                if connection.execute(_FOUND, (word,)).fetchall() != [(policy_id, node_id)]:
                    return f"{word!r} is not found in node {node_id!r} of {policy_id}"
    return None


def _wrong_names(found: Iterable[str], expected: dict[str, Held]) -> str:
    names = set(found)
    missing, more = expected.keys() - names, names - expected.keys()
    return f"{len(missing)} documents are missing, and {len(more)} are there that should not be"


def check_among(writer: type[Writer], folder: Path, writes: Iterable[Write]) -> None:
    """As :func:`check`, of treestore, where there may be other documents too."""
    expected = held_after(writes)
    with opened_again(folder) as store:
        names = {document.policy_id for document in store.documents.list_documents()}
        if not expected.keys() <= names:
            raise Mismatch(f"{writer.name}, opened again: {len(expected.keys() - names)} documents are missing")
        for policy_id, held in expected.items():
            nodes = store.documents.get_document(policy_id, version_id=VERSION).nodes
            if [node.text for node in nodes] != held.texts:
                raise Mismatch(f"{writer.name}, opened again: {policy_id} says something else")
