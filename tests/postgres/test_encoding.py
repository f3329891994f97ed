"""A database that does not keep text in UTF-8 is refused before anything is written, whoever comes first."""

from __future__ import annotations

import subprocess
import sys

import pytest

import treestore
from tests.postgres import databases
from treestore import NotAStore


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_another_encoding_is_refused(encoding: str) -> None:
    name = databases.new_name()
    with databases.server().connect() as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = databases.server().url(name)
    with pytest.raises(NotAStore, match=f"encoding is {encoding}"):
        treestore.open_sync(url)
    command = [sys.executable, "-m", "treestore", "db", "upgrade", "--store", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"encoding is {encoding}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_failed_read_says_one_line() -> None:
    """Nothing of the driver's on stderr, though the connection was in a transaction."""
    url = databases.new_url()
    with treestore.open_sync(url) as store:
        store.documents.store_document("p", "1", [{"node_id": "a", "title": "t", "text": "word"}])
    with databases.server().connect(url.partition("?")[0].rpartition("/")[2]) as connection:
        connection.execute("DROP TABLE treestore_postings")
    command = [sys.executable, "-m", "treestore", "search", "p", "word", "--store", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "treestore db check" in done.stderr
