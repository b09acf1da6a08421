"""How a run ends before it is done: a failure of its own, or the wish to end it, told by a signal or by a caller and heard
where the run's state is whole."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

# SIGHUP: the terminal was closed
SIGNALS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class RunFailed(Exception):
    """A run that cannot go on: the message is one line with the reason."""


def out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, of the machine or of a device: in Python's, numpy's and torch's words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error)  # torch words a failed allocation on the CPU so


class Stopped(KeyboardInterrupt):
    """The run was asked to end. `code` is the process's exit code: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(SIGNALS.get(number, f"stopped by signal {number}"))
        self.number, self.code = number, 128 + number


class Stop:
    """Whether a run is to end. Within `deferred` it goes on until the end of the block, or until it asks with `check`.

    `save`: whether it is to write a checkpoint and go on.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.save = False
        self._deferred = False

    def ask(self, number: int = signal.SIGINT, frame: object = None) -> None:
        """End the run; made to be a signal's handler, so it raises Stopped where that is not deferred."""
        self.number = int(number)
        if not self._deferred:
            self.check()

    def ask_checkpoint(self, number: int = signal.SIGTERM, frame: object = None) -> None:
        """Have a checkpoint written as soon as there can be one; made to be a signal's handler."""
        self.save = True

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self.number is not None:
            raise Stopped(self.number)

    def ignore(self) -> None:
        """Let what happens now, the end of a command, go on whatever is asked."""
        self._deferred = True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Finish the block, and the one it lies in, whatever is asked meanwhile; then end."""
        with self.held():
            yield
        if not self._deferred:
            self.check()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Finish the block whatever is asked meanwhile, and leave it to a later `check` to end."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    def hush(self) -> None:
        """From now on, once the run is asked to end, say nothing of what a `__del__` raises: a signal comes anywhere, also
        in the middle of another library's `__init__`."""
        before = sys.unraisablehook

        def hook(raised: Any) -> None:
            if self.number is None:
                before(raised)

        sys.unraisablehook = hook

    @contextlib.contextmanager
    def listening(self, handlers: Mapping[int, Any] | None = None) -> Iterator[Stop]:
        """Take SIGNALS as the wish to end, or let signals have other `handlers`, for the block; then put back those of before.
        A SIGHUP that is ignored stays so: whoever started this with nohup wants it to go on."""
        handlers = dict.fromkeys(SIGNALS, self.ask) if handlers is None else handlers
        handlers = {number: handler for number, handler in handlers.items()
                    if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN}
        before, hook = {number: signal.getsignal(number) for number in handlers}, sys.unraisablehook
        try:  # a signal may come between one handler and the next
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.hush()
            yield self
        finally:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)
