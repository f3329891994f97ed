"""How the cost of some work grows with its size: a ratio, as the time alone says more of the machine than of the code."""

import gc
import time
from collections.abc import Callable

_TRIES = 6


def grows_at_most(factor: float, work: Callable[[int], Callable[[], object]], small: int, large: int) -> bool:
    """Whether `work(large)()` takes at most `factor` times the processor time that `work(small)()` does.

    `work` prepares and is not timed. Each size counts with the least of up to six tries, so other work on the machine is
    no excuse for what grows too fast, and no blame for what does not.
    """
    best = {small: float("inf"), large: float("inf")}
    for _ in range(_TRIES):
        for size in best:
            ready = work(size)
            gc.collect()
            gc.disable()
            try:
                began = time.process_time()
                ready()
                best[size] = min(best[size], time.process_time() - began)
            finally:
                gc.enable()
        if best[large] <= factor * best[small]:
            return True
    return False
