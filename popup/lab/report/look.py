"""How pictures look, by day and by night. Colours are Okabe and Ito's, which the colour-blind can tell apart, but for their
yellow: on white nobody sees it.

An SVG has the colours of the day written out, for programs that know no style sheets, and rules beside them that put those of
the night in their place where the reader's browser is dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

GROUND, INK = "#ffffff", "#1a1a1a"
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BROWN, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#7a5c2e", "#808080")
NIGHT = {GROUND: "#16181b", INK: "#e8e6e3", BLUE: "#3d9be0", ORANGE: "#f0b441", GREEN: "#2bc79a", VERMILION: "#ff8a3d",
         SKY: "#9ad8ff", PURPLE: "#e39ac6", BROWN: "#c9a66b", GREY: "#9a9a9a"}
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, INK, BROWN)
MARKERS = "osD^vPX*"

LOOK: dict[RcKeyType, Any] = {
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "figure.facecolor": GROUND, "axes.facecolor": GROUND, "savefig.facecolor": GROUND, "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False}


def night_rules(within: str) -> str:
    """The style sheet that gives what lies `within` a selector the colours of the night."""
    rules = (f'{within} [style*="{part}: {day}"] {{ {part}: {night} !important }}'
             for day, night in NIGHT.items() for part in ("fill", "stroke"))
    return "@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}"


def themed(svg: str) -> str:
    """The text of an SVG file with the rules of the night in it."""
    head = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:head]}\n<style>\n{night_rules('svg')}\n</style>{svg[head:]}"
