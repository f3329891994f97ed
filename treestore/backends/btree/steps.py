"""Long work as a generator that pauses often, so that an event loop may serve others meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from types import GeneratorType
from typing import TypeAlias, TypeVar, cast

from treestore.backends.btree.engine.bulk import finished

R = TypeVar("R")

Steps = Generator[None, None, R]
"""Work that pauses after each step of less than a millisecond; its result is what the generator returns."""

Answer: TypeAlias = R | Steps[R]
"""A result that was there at once, as most are, or the steps to it."""

_STEP_SECONDS = 0.001  # an event loop is let go on after so much work


def whole(answer: Answer[R]) -> R:
    """The result, all steps taken at once."""
    return finished(answer) if isinstance(answer, GeneratorType) else cast(R, answer)


async def in_steps(steps: Steps[R]) -> R:
    """Run steps in an event loop, which is let go on about every millisecond."""
    began = time.perf_counter()
    try:
        while True:
            next(steps)
            if time.perf_counter() - began > _STEP_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
    except StopIteration as end:
        result: R = end.value
        return result
    finally:
        steps.close()
