"""The gain of each layer's weights: one number for all, or that number for all but those that patterns of names give another.

In a config and in a ticket it is one value: a number, or a text like "1.1 *.attention.qkv=2.8", the number first, then the
patterns in the order of the alphabet. Random transformers want a larger one in queries and keys (arXiv 2511.04217).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, sqrt

from popup.errors import UsageError, check_number
from popup.source.patterns import by_name, matches

EVERYWHERE = "*"  # the pattern of the plain number: any other goes before it
USUAL = sqrt(2)


def gain_of(gain: float | str, name: str) -> float:
    """The gain of the weight `name`."""
    if not isinstance(gain, str):
        return gain
    patterns = read(gain)
    usual = patterns.pop(EVERYWHERE)
    return next((value for pattern, value in patterns.items() if matches(pattern, name)), usual)


def check_patterns(gain: float | str, names: Iterable[str]) -> None:
    """A UsageError for a pattern that is of none of a network's weights, and for two that give one weight different gains."""
    if isinstance(gain, str):
        by_name({pattern: value for pattern, value in read(gain).items() if pattern != EVERYWHERE}, names)


def as_one(gains: Mapping[str, float]) -> float | str:
    """The gains by pattern as one value. The plain number is that of "*", or the usual one. A UsageError for what is none."""
    for pattern, value in gains.items():
        if not isinstance(pattern, str) or not pattern or any(letter in " =," for letter in pattern):
            raise UsageError(f"gain has the pattern {pattern!r:.80}: it must be a text like '*.attention.*', without blanks, "
                             "commas and =")
        check_number("gain" if pattern == EVERYWHERE else f"gain of {pattern}", value, 0.0, inf, open_low=True)
    usual, others = gains.get(EVERYWHERE, USUAL), sorted(gains.keys() - {EVERYWHERE})
    return " ".join([repr(float(usual)), *(f"{name}={float(gains[name])!r}" for name in others)]) if others else usual


def read(gain: float | str) -> dict[str, float]:
    """The gains by pattern that `as_one` made one value, the plain number as that of "*"."""
    if not isinstance(gain, str):
        return {EVERYWHERE: gain}
    return from_words(gain.split(" "))


def from_words(words: Sequence[str]) -> dict[str, float]:
    """The gains by pattern of words: PATTERN=NUMBER each, or the plain number. A UsageError for others."""
    if not words:
        raise UsageError("gain has no value: give a number, like 1.4142135623730951")
    gains: dict[str, float] = {EVERYWHERE: USUAL}
    found: set[str] = set()
    for word in words:
        pattern, sign, number = word.rpartition("=")
        try:
            if sign and not pattern:
                raise ValueError
            value = float(number)
        except ValueError:
            raise UsageError(f"gain is {' '.join(words)!r:.80}: {word!r:.80} is no number and no PATTERN=NUMBER; give words like "
                             "1.1 and *.attention.*=2.8") from None
        pattern = pattern or EVERYWHERE
        if pattern in found:
            raise UsageError(f"gain has two values for {pattern}: give one of them")
        gains[pattern] = value
        found.add(pattern)
    return gains


def as_words(gain: float | str) -> tuple[str, ...]:
    """The gain as words of a command line."""
    return tuple(gain.split(" ")) if isinstance(gain, str) else (repr(gain),)


def check_gain(gain: float | str) -> None:
    """A UsageError for what is no gain, or a text that `as_one` would write otherwise."""
    if not isinstance(gain, str):
        check_number("gain", gain, 0.0, inf, open_low=True)
    elif as_one(read(gain)) != gain:
        raise UsageError(f"gain is {gain!r:.80}: write it as {as_one(read(gain))!r:.80}")
