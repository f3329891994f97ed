"""What tests of faults share: a store by one face or the other, and what every error must be like."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from tests.clock import SetClock
from tests.contract.samples import node
from tests.stores import KINDS, SyncStore
from treestore import TreestoreError

SECRET = "s3cret:@/ %ü"

Face = Literal["sync", "async"]
FACES: tuple[Face, ...] = ("sync", "async")


def opened(url: str, face: Face = "sync") -> SyncStore:
    """A store by one of its faces, both behind the synchronous one."""
    return KINDS["memory" if face == "sync" else "memory-async"].open(url, SetClock(), None)


def store_one(store: SyncStore, policy_id: str = "p", version_id: str = "1", **fields: Any) -> None:
    """Store a document of two nodes."""
    fields = {"text": "text of a", **fields}
    store.documents.store_document(policy_id, version_id, [node("a", **fields), node("b", "a")])


@contextmanager
def fails(kind: type[TreestoreError], match: str = ".", *, within: float = 5.0, chained: bool = True) -> Iterator[None]:
    """What is done inside fails with exactly this error of ours, in so many seconds: one line, no secret, the driver's error
    chained and nowhere else."""
    began = time.monotonic()
    with pytest.raises(TreestoreError, match=match) as caught:
        yield
    took = time.monotonic() - began
    error = caught.value
    assert type(error) is kind, error
    said = str(error)
    assert said, "it says something"
    assert "\n" not in said
    assert "Traceback" not in said
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert "s3cret" not in shown
    assert not chained or error.__cause__ is not None
    assert took < within, f"{took:.1f} s"


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.01)
