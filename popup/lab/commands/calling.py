"""tyro, called so that its errors are one line, and its help is there at once in any terminal."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from popup.errors import UsageError
from popup.lab.commands.help import Help

NARROWEST = 40  # columns of a terminal; in fewer the help would be a word a line, and take minutes


def call_tyro(mirror: type, arguments: Sequence[str], shown: Help) -> Any:
    """tyro prints its errors as boxes of several lines; here they become the one line of a UsageError. The help is our own."""
    import tyro

    if {"-h", "--help"} & set(arguments):
        with contextlib.suppress(BrokenPipeError):
            print(shown.text(), flush=True)
        raise SystemExit(0)
    shown.check_known(arguments)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _wide_enough():
            return tyro.cli(mirror, prog=shown.program, args=list(arguments), add_help=False)
    except SystemExit:
        raise UsageError(shown.missing(errors.getvalue()) or _one_line(errors.getvalue(), shown.program)) from None


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Let a terminal have at least NARROWEST columns for the block."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(box: str, program: str) -> str:
    """The message inside tyro's box, between its title and its next rule, as one line that points to --help. (Where the terminal
    is of ASCII, rules are of hyphens, and one stands below the title.)"""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" \u2502") for line in box.splitlines()]
    rule = re.compile("\u2570|[\u2500-]{4}")
    body = itertools.takewhile(lambda line: not rule.match(line), itertools.dropwhile(rule.match, lines[1:]))
    text = " ".join(line for line in body if line).removeprefix("Error parsing ")
    text = re.sub(r"Could not find valid parse for arguments: \[(.*?)\]", _no_numbers, text)
    text = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no whole number: give one in digits", text)
    text = re.sub(r"could not convert string to float: (.*)", r"\1 is no number: give one like 0.5 or 1e-3", text)
    return f"{text or 'the command line cannot be read'} ({program} --help lists the options)"


def _no_numbers(found: re.Match[str]) -> str:
    """What is wrong with the words of an option that takes several numbers; names are read whatever they are."""
    words = re.findall(r"'([^']*)'", found[1])
    strange = next((word for word in words if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", word, re.I)), None)
    if strange is not None:
        return f"{strange!r} is no number: give numbers with blanks between them"
    return f"{' '.join(words)} are no whole numbers: give such, with blanks between them"
