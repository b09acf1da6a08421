"""The threads that are in a pass of one network, which each of them may call by itself."""

from __future__ import annotations

import threading


class Callers:
    """Who has begun a pass and not ended it. A thread that an interrupt took out of one is forgotten with its next pass, or when
    it has ended."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def enter(self, alone: bool) -> None:
        """This thread begins; `alone`: what the others have begun is over."""
        me = {threading.get_ident()}
        self._threads = me if alone else self._threads | me

    def leave(self) -> bool:
        """This thread has ended its pass. Whether nobody else is in one."""
        self._threads = self._threads - {threading.get_ident()}
        if self._threads:
            self._threads &= {thread.ident or 0 for thread in threading.enumerate()}
        return not self._threads
