"""The help of a command, made of the dataclasses that are its options, in lines of the terminal's width."""

from __future__ import annotations

import difflib
import inspect
import re
import shutil
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from textwrap import fill
from typing import Any

from popup.errors import UsageError
from popup.lab.program import as_called

NARROWEST, WIDEST = 40, 120  # columns; longer lines nobody reads
MARGIN, COLUMN = 2, 24       # where an option begins, and where its help does
NAMES = {int: "N", float: "X", str: "NAME"}
GOES_ON = "the same command again goes on where it was"
NEEDLESS = {"resume": GOES_ON, "continue": GOES_ON}  # options of other programs, and what stands in their place here
PLACES = {"directory": "DIR"}  # positional arguments that are called otherwise than their fields


@dataclass(frozen=True)
class Option:
    """One option, or one positional argument, as a user has it."""

    name: str          # er-p, TICKET
    value: str         # what stands behind it, empty where nothing does
    text: str
    default: str       # empty where there is none to tell
    positional: bool
    switch: bool       # may be turned off by --no-...

    @property
    def usage(self) -> str:
        """How it is written."""
        if self.positional:
            return self.name
        return f"--[no-]{self.name}" if self.switch else f"--{self.name} {self.value}"

    def lines(self, width: int) -> str:
        """It and its help."""
        text = f"{self.text}{f' (default: {self.default})' if self.default else ''}"
        shown = fill(text, width, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN, break_on_hyphens=False)
        head = " " * MARGIN + self.usage
        return head.ljust(COLUMN) + shown[COLUMN:] if len(head) < COLUMN - 1 else f"{head}\n{shown}"


def option_of(part: Field[Any], kind: Any, choices: Mapping[str, Sequence[str]], defaults: Mapping[str, Any]) -> Option:
    """The option of a dataclass's field; `choices` adds names that only the caller knows, `defaults` replace its own."""
    default = defaults.get(part.name, part.default)
    if "words" in part.metadata:
        kind, default = tuple[str, ...], default if isinstance(default, float) else part.metadata["words"][0](default)
    positional = bool(part.metadata.get("positional"))
    name = PLACES.get(part.name, part.name).upper() if positional else part.name.replace("_", "-")
    several = bool(part.metadata.get("axis")) or typing.get_origin(kind) is tuple
    value = _value_of(typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind, several)
    return Option(name, value, help_of(part, choices), _told(default), positional, kind is bool)


def help_of(part: Field[Any], choices: Mapping[str, Sequence[str]]) -> str:
    """The help text of a field, with the names that it may have."""
    names = choices.get(part.name) or part.metadata.get("choices")
    return (as_called(part.metadata["help"]) + (f": {', '.join(names)}" if names else "")
            + (" [takes several values]" if part.metadata.get("axis") else ""))


def _value_of(kind: type, several: bool) -> str:
    return "" if kind is bool else NAMES[kind] + " ..." * several


def _told(default: Any) -> str:
    """A default in words; empty where it is nothing."""
    if default is MISSING or default == "" or default == ():
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return " ".join(map(_told, default))
    return f"{default:.6g}" if isinstance(default, float) else str(default)


def options_of(kind: type, choices: Mapping[str, Sequence[str]], defaults: Mapping[str, Any]) -> list[Option]:
    """All options of a dataclass, in its order."""
    hints = typing.get_type_hints(kind)
    return [option_of(part, hints[part.name], choices, defaults) for part in fields(kind) if not part.metadata.get("hidden")]


@dataclass(frozen=True)
class Help:
    """What is said of a command. `groups`: by title a sentence on them, and options; positional arguments come first, whatever
    their group."""

    program: str
    description: str
    groups: Mapping[str, tuple[str, Sequence[Option]]]

    @property
    def options(self) -> list[Option]:
        return [option for _, options in self.groups.values() for option in options]

    @property
    def usage(self) -> str:
        """The command with its arguments."""
        named = ["[options]"] if any(not option.positional for option in self.options) else []
        return " ".join([self.program, *(option.name for option in self.options if option.positional), *named])

    def text(self) -> str:
        """All of it."""
        width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))
        parts = [f"usage: {self.usage}", paragraphs(as_called(self.description), width)]
        if positional := [option for option in self.options if option.positional]:
            parts.append(_group("arguments", "", positional, width))
        parts += [_group(title, text, named, width) for title, (text, options) in self.groups.items()
                  if (named := [option for option in options if not option.positional])]
        return "\n\n".join(parts)

    def check_known(self, arguments: Sequence[str]) -> None:
        """A UsageError for the first option that there is not, with the one that may have been meant."""
        known = [option.name for option in self.options if not option.positional]
        known += [f"no-{option.name}" for option in self.options if option.switch]
        for word in arguments:
            name = word.split("=")[0].lstrip("-").replace("_", "-")
            single = re.match(r"-(?!inf|nan)[a-z]", word, flags=re.IGNORECASE)  # -inf and -0.5 are numbers
            if single or (word.startswith("--") and name not in known):
                if name in NEEDLESS:
                    raise UsageError(f"there is no option {word.split('=')[0]}, and none is needed: {NEEDLESS[name]}")
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
                meant = f": did you mean --{near[0]}?" if near else ""
                raise UsageError(f"unknown option {word.split('=')[0]}{meant} ({self.program} --help lists the options)")

    def missing(self, error: str) -> str:
        """The line on positional arguments that tyro finds missing, if that is its `error`; else empty."""
        names = [option.name for option in self.options if option.positional and option.name in error]
        if "Missing from" not in error or not names:
            return ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing: {self.usage}"


def _group(title: str, text: str, options: Sequence[Option], width: int) -> str:
    said = [fill(inspect.cleandoc(text).replace("\n", " "), width, initial_indent="  ", subsequent_indent="  ")] if text else []
    return "\n".join([f"{title}:", *said, *(option.lines(width) for option in options)])


def paragraphs(text: str, width: int) -> str:
    """The text in lines of that width: lines that belong together are joined, those that are indented stay lines of their own."""
    done: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        plain = bool(line) and not line.startswith(" ")
        if plain and done and done[-1] and not done[-1].startswith(" "):
            done[-1] += f" {line}"
        else:
            done.append(line)
    return "\n".join(_wrapped(line, width) for line in done)


def _wrapped(line: str, width: int) -> str:
    inner = line.lstrip()
    indent = " " * (len(line) - len(inner))
    if len(line) <= width:
        return line
    return fill(inner, width, initial_indent=indent, subsequent_indent=f"{indent}    " if indent else "", break_on_hyphens=False)
