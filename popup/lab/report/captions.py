"""What stands beside a picture of a report: its title, and its caption, which explains the intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from popup.lab.report.comparison import Setting
from popup.lab.runs.grid import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = list["Figure"] | str


@dataclass(frozen=True)
class Picture:
    """A kind of picture: `draw` takes settings and a sheet, and gives figures or a sentence in their place."""

    title: str
    draw: Callable[..., Drawn]
    caption: Callable[[Sequence[Setting]], str]


def seeds_of(found: Sequence[Setting]) -> str:
    """Over how many seeds means are: like 3 seeds, or 2 to 3 seeds."""
    low, high = (limit(setting.accuracy.count for setting in found) for limit in (min, max))
    return counted(high, "seed") if low == high else f"{low} to {counted(high, 'seed')}"


def intervals(found: Sequence[Setting]) -> str:
    """The sentence on the bars of means and differences."""
    if max(setting.accuracy.count for setting in found) == 1:
        return "There is one seed, so there are no intervals."
    return f"Bars are 95% t intervals over {seeds_of(found)}."


def described(title: str, figure: Figure) -> str:
    """What a picture shows, for those who do not see it."""
    panels = [panel for panel in figure.axes if panel.get_xlabel() or panel.get_ylabel()]
    words = [title]
    for panel in panels:
        name = panel.get_title().replace("\n", " ")
        axes = " against ".join(filter(None, (" ".join(panel.get_ylabel().split()), " ".join(panel.get_xlabel().split()))))
        words.append(f"{name}: {axes}" if name else axes)
    labels = [text.get_text().replace("\n", " ") for legend in figure.legends for text in legend.get_texts()]
    return ". ".join([*dict.fromkeys(words), *([f"Lines: {', '.join(labels)}"] if labels else [])]) + "."
