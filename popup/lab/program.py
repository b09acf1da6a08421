"""How popup's commands are called here: `python run.py` in a checkout, `popup` where it is installed."""

from __future__ import annotations

import sys

CHECKOUT, INSTALLED = "python run.py", "popup"


def program() -> str:
    """What to type before the options of a command."""
    return INSTALLED if "popup_command" in sys.modules else CHECKOUT


def as_called(text: str) -> str:
    """A text that names commands as in a checkout, as they are called here."""
    return text.replace(CHECKOUT, program())
