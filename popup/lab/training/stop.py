"""The wish to end a run, told by a signal or by a caller, and heard where the run's state is whole."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(KeyboardInterrupt):
    """The run was asked to end. `code` is the process's exit code: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(SIGNALS.get(number, f"stopped by signal {number}"))
        self.code = 128 + number


class Stop:
    """Whether a run is to end. Within `deferred` it goes on until the end of the block, or until it asks with `check`."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._deferred = False

    def ask(self, number: int = signal.SIGINT, frame: object = None) -> None:
        """End the run; made to be a signal's handler, so it raises Stopped where that is not deferred."""
        self.number = int(number)
        if not self._deferred:
            self.check()

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Finish the block whatever is asked meanwhile, then end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take SIGINT and SIGTERM as the wish to end, for the block, and leave the handlers as they were."""
        before = {number: signal.signal(number, self.ask) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
