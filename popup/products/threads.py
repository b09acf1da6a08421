"""One piece of work, shared out to as many threads as torch uses.

Numba's own parallel loops are not used: where its simplest pool is all there is, two Python threads that use it at once end
the process. Kernels let go of Python's lock, so ordinary threads do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

WORTH = 500_000  # vector operations that are worth a thread: 0.2 ms or so, where waking one takes 0.03 and may take longer
SHARES = 4  # for each thread: one that is late then does less


@functools.cache
def _pool(process: int, others: int) -> ThreadPoolExecutor:
    """The other threads of a process: one that was forked has its own, since the threads of its parent are not in it."""
    return ThreadPoolExecutor(others, thread_name_prefix="products")


def worth(operations: float) -> int:
    """How many threads so many vector operations are worth."""
    return max(1, min(torch.get_num_threads(), int(operations // WORTH)))


def share(work: Callable[[int, int], None], units: int, threads: int) -> None:
    """Call work(first, last) until all `units` are done, in pieces and from several threads.

    Which thread does a piece, and how many pieces there are, must not matter for what it writes.
    """
    threads = min(threads, units)
    if threads < 2:
        work(0, units)
        return
    size = -(-units // (SHARES * threads))
    pieces = iter(range(0, units, size))  # all threads take from this one; taking one is a single step of the interpreter

    def take() -> None:
        for first in pieces:
            work(first, min(first + size, units))

    waiting = [_pool(os.getpid(), threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for other in waiting:
            if not other.cancel():  # one that has not begun need not be waited for
                other.result()
