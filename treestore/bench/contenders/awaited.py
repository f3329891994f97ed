"""A store that is asked under asyncio: all questions of one measurement are awaited in one running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from treestore.bench.contender import Contender


class Awaited(Contender):
    """Its verbs give awaitables, and ``self._loop`` runs them."""

    def __init__(self) -> None:
        self._loop = asyncio.Runner()

    def close(self) -> None:
        self._loop.close()

    def answer(self, verb: str, question: Any) -> Any:
        async def ask() -> Any:
            return await self.verbs[verb](self.ready(verb, question))

        return self._loop.run(ask())

    def seconds(self, verb: str, questions: Sequence[Any]) -> float:
        async def ask_all() -> float:
            ask = self.verbs[verb]
            start = perf_counter()
            for question in questions:
                await ask(question)
            return perf_counter() - start

        return self._loop.run(ask_all())
