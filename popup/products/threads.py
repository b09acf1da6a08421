"""One piece of work, shared out to as many threads as torch uses.

Numba's own parallel loops are not used: where its simplest pool is all there is, two Python threads that use it at once end
the process. Kernels let go of Python's lock, so other threads do: where torch's threads are those of GNU's OpenMP, the very same.
These wait for torch's next operation by asking for it again and again for milliseconds, and would keep the cores from any others
so long. Else ordinary threads do.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

WORTH = 100_000  # vector operations that are worth a thread: 40 us or so, where having one at work takes 10 to 25
SHARES = 4  # for each thread: one that is late then does less
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _openmp() -> Callable[..., None] | None:
    """GNU OpenMP's call that has a team of threads run a function, of the library that came with torch and is loaded already;
    None: torch came with another."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        return ctypes.CDLL(str(path)).GOMP_parallel
    return None


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

    team = _openmp()
    _by_team(team, take, threads) if team is not None else _by_pool(take, threads)


def _by_team(team: Callable[..., None], take: Callable[[], None], threads: int) -> None:
    """Have torch's own threads, this one among them, each call `take`."""
    raised: list[BaseException] = []

    def body(_: object) -> None:
        try:
            take()
        except BaseException as error:  # no exception gets through a function of C's
            raised.append(error)

    team(BODY(body), None, threads, 0)
    for error in raised:
        raise error


def _by_pool(take: Callable[[], None], threads: int) -> None:
    """Have this thread and others of a pool each call `take`."""
    waiting = [_pool(os.getpid(), threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for other in waiting:
            if not other.cancel():  # one that has not begun need not be waited for
                other.result()
