"""How a command ends that does not end well: one line and an exit code."""

from __future__ import annotations

import sys

from popup.errors import UsageError
from popup.lab.text import printable
from popup.lab.training.ranks import may_speak
from popup.lab.training.stop import RunFailed, Stopped

FAILED, USAGE = 1, 2  # and 130, 143: ended by SIGINT, SIGTERM
LONGEST_LINE = 4000  # letters
ENDINGS = (UsageError, RunFailed, OSError, Stopped)


def say(error: UsageError | RunFailed | OSError | Stopped, goes_on: bool = True) -> int:
    """Print the line of an error, if it is this rank's to print; returns the exit code. `goes_on`: whether the same command
    would go on where this one was stopped."""
    line, code = _last_words(error, goes_on)
    if may_speak():
        print(printable(" ".join(line.split()), LONGEST_LINE), file=sys.stderr)
    return code


def _last_words(error: UsageError | RunFailed | OSError | Stopped, goes_on: bool) -> tuple[str, int]:
    if isinstance(error, Stopped):
        return f"popup: {error}{'; the same command goes on from here' * goes_on}", error.code
    if isinstance(error, UsageError):
        return f"popup: {error}", USAGE
    if isinstance(error, RunFailed):
        return f"popup: the run failed: {error}", FAILED
    return f"popup: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", FAILED
