"""What comes from outside as text: names and reasons, shown without what a terminal, a page or a picture would obey."""

from __future__ import annotations

LONGEST = 1000  # letters of a name or a reason that are shown


def printable(text: object, most: int = LONGEST) -> str:
    """One line of at most `most` letters, in which a letter that is none to be seen is a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:most])


def printable_lines(text: str) -> str:
    """The same of a text of several lines, however long."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))
