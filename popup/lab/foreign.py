"""What a user's function, or what it calls, has raised: as words for one line."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

FAULTS = (Exception, SystemExit)  # what a function of others may raise; an interrupt is its user's
SAID = (RuntimeError, ValueError, AssertionError)  # whose messages speak for themselves
HOUSE = Path(__file__).parents[2]
LIBRARIES = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")]
OTHERS = [*LIBRARIES, HOUSE / "popup", HOUSE / "models"]  # where no line is the user's


def told(error: BaseException) -> str:
    """What was raised, and in which line of the user's own, if it was in one."""
    said = (str(error).splitlines() or [""])[0]
    words = said if said and isinstance(error, SAID) else f"{type(error).__name__}: {said}".removesuffix(": ")
    own = [frame for frame in traceback.extract_tb(error.__traceback__)
           if Path(frame.filename).is_file() and not any(Path(frame.filename).is_relative_to(place) for place in OTHERS)]
    return f"{words} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else words
