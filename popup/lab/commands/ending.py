"""How a command ends that does not end well: one line and an exit code. And what it warns of: a line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from popup.errors import UsageError
from popup.lab.text import printable
from popup.lab.training.ranks import may_speak
from popup.lab.training.stop import RunFailed, Stopped

FAILED, USAGE = 1, 2  # and 130, 143: ended by SIGINT, SIGTERM
LONGEST_LINE = 4000  # letters
ENDINGS = (UsageError, RunFailed, OSError, Stopped)

OWN = Path(__file__).parents[2]  # where popup's code lies


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Have popup's own warnings be a line each, as its errors are, without the code that they come from."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        own = Path(filename).is_relative_to(OWN)
        return f"popup: {printable(message, LONGEST_LINE)}\n" if own else usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def say(error: UsageError | RunFailed | OSError | Stopped, goes_on: bool = True) -> int:
    """Print the line of an error, if it is this rank's to print; returns the exit code. `goes_on`: whether the same command
    would go on where this one was stopped."""
    line, code = _last_words(error, goes_on)
    if may_speak() and line:
        print(printable(" ".join(line.split()), LONGEST_LINE), file=sys.stderr)
    return code


def _last_words(error: UsageError | RunFailed | OSError | Stopped, goes_on: bool) -> tuple[str, int]:
    if isinstance(error, Stopped):
        return f"popup: {error}{'; the same command goes on from here' * goes_on}", error.code
    if isinstance(error, UsageError):
        return f"popup: {error}", USAGE
    if isinstance(error, RunFailed):
        return f"popup: the run failed: {error}", FAILED
    if isinstance(error, BrokenPipeError):
        return "popup: nobody reads what it prints any more; the same command goes on from here" * goes_on, FAILED
    return f"popup: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", FAILED
