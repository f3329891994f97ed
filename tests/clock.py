"""A clock that stands still until it is told to go on, and what counts by the real one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from treestore import Closed

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class SetClock:
    """Called, it says ``now``; tests set it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        """Go on by so many days, hours, seconds…, and say the new time."""
        self.now += timedelta(**by)
        return self.now


@contextmanager
def young(seconds: float) -> Iterator[None]:
    """What is taken inside may be :class:`Closed` for its age, but not before it can have that: on a slow machine it can."""
    began = time.monotonic()
    try:
        yield
    except Closed:
        assert time.monotonic() - began >= seconds, "closed before its time"
