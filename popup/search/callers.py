"""The threads that are in a pass of one network, which each of them may call by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Callers:
    """Who has begun a pass and not ended it. A thread that an interrupt took out of one is forgotten with its next pass, or when
    it has ended. A copy has none."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Callers], tuple[()]]:
        return Callers, ()  # a lock cannot be copied

    def enter(self, alone: bool) -> None:
        """This thread begins; `alone`: what the others have begun is over."""
        with self._lock:
            if alone:
                self._threads.clear()
            self._threads.add(threading.get_ident())

    def leave(self, clear: Callable[[], None]) -> bool:
        """This thread has ended its pass. Whether nobody else is in one; then `clear` is called before anybody enters."""
        with self._lock:
            self._threads.discard(threading.get_ident())
            if self._threads:
                self._threads &= {thread.ident or 0 for thread in threading.enumerate()}
            if not self._threads:
                clear()
            return not self._threads
