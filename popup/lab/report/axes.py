"""What the pictures of a comparison share: sheets of panels, legends, lines by a factor, intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from popup.lab.report.comparison import FIRST, Setting, panels, show
from popup.lab.report.factors import vague
from popup.lab.report.look import COLOURS, MARKERS
from popup.lab.report.scales import SMALL
from popup.lab.report.statistics import Mean
from popup.lab.report.tables import wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 8.0  # points, of legends and notes
PANELS = 6   # of one figure
BELOW = "below"  # what a legend below the panels is called
OTHERS = "compared with"  # the heading of a legend's references
FIGURES = 4  # of one kind: more than all their panels nobody looks at


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on: its `widths`, in inches, by the number of columns that it has at most; and the letters of the
    longest label of a legend that may stand beside the panels, which longer ones would crush."""

    widths: tuple[float, ...]
    beside: int

    def grid(self, panels: int, height: float = 3.4) -> tuple[Figure, list[Axes]]:
        """A figure of so many panels, each of that height in inches."""
        from matplotlib.figure import Figure  # half a second of import that only pictures need

        columns = min(len(self.widths), panels)
        rows = -(-panels // columns)
        figure = Figure(figsize=(self.widths[columns - 1], height * rows), layout="constrained", dpi=150)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[panels:]:
            spare.remove()
        for panel in axes[:panels]:
            panel.spines[["top", "right"]].set_visible(False)
        return figure, axes[:panels]


WIDE = Sheet((10.0, 10.0, 10.0), 36)  # a page's width
NARROW = Sheet((3.75,), 0)             # a telephone's, 360 pixels of CSS


def paged(found: Sequence[Setting], without: Sequence[str], sheet: Sheet,
          draw: Callable[[Figure, list[Axes], Sequence[list[Setting]]], None]) -> list[Figure]:
    """`draw` on as many figures as it takes, a panel for each combination of the factors outside `without`, in their order; the
    last figure says what is left out."""
    groups = sorted(panels(found, without), key=lambda group: _place(group, without))
    shown, figures = groups[:PANELS * FIGURES], []
    for start in range(0, len(shown), PANELS):
        part = shown[start:start + PANELS]
        figure, axes = sheet.grid(len(part))
        draw(figure, axes, part)
        figures.append(figure)
    if len(shown) < len(groups):
        note(figures[-1], f"{len(shown)} of {len(groups)} panels are drawn; the tables have all")
    return figures


def _place(group: Sequence[Setting], without: Sequence[str]) -> list[tuple[Any, ...]]:
    """Where a panel stands: by its factors, a value that is any behind the others. A complete source, to which some do not
    matter, may be in it: it has the factors of the setting to which most do."""
    told = min(group, key=lambda setting: sum(map(vague, setting.factors.values())))
    return [(vague(value), str(type(value)), value) for name, value in told.factors.items() if name not in without]


def note(figure: Figure, text: str) -> None:
    """A line below the panels, after those that are there; above the legend if that stands below them."""
    if lower := [found for found in figure.legends if found.get_gid() == BELOW]:
        from matplotlib.font_manager import FontProperties

        lower[0].set_title("\n".join(filter(None, (text, lower[0].get_title().get_text()))), FontProperties(size=LEAST))
        return
    figure.supxlabel(wrap("; ".join(filter(None, (figure.get_supxlabel(), text))), _letters(figure)), fontsize=LEAST)


def legend(figure: Figure, drawn: Sequence[Axes], sheet: Sheet, title: str | None = None, order: Sequence[str] = ()) -> None:
    """One legend of all panels' lines, where it cannot hide a point: beside them, or below them if its words are long. Under the
    title come the labels of `order` in that order, then the others; two headings are entries, so that they are aligned."""
    from matplotlib.lines import Line2D

    found = {label: handle for panel in drawn for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    labels = [label for label in order if label in found]
    others = [label for label in found if label not in order]
    if labels and others:
        found[OTHERS] = Line2D([], [], linestyle="")
        others.insert(0, OTHERS)
        if title:
            found[title] = found[OTHERS]
            labels.insert(0, title)
            title = None
    labels += others
    look: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": LEAST, "title": title,
                            "title_fontsize": LEAST, "alignment": "left"}
    if max(map(len, labels), default=0) > sheet.beside:
        look |= _below(figure, labels, title)
    made = figure.legend([found[label] for label in labels], [wrap(label, _letters(figure)) for label in labels], **look)
    made.set_gid(BELOW if "ncols" in look else None)


def _letters(figure: Figure) -> int:
    """How many letters of a legend fit beside its sign in a line as wide as the figure."""
    return int(13 * figure.get_figwidth()) - 8


def _below(figure: Figure, labels: Sequence[str], title: str | None) -> dict[str, Any]:
    """Make room for a legend below the panels, a note that is there becoming a part of its title; returns its look."""
    title = "\n".join(filter(None, (figure.get_supxlabel(), title)))
    figure.supxlabel("")
    columns = max(1, _letters(figure) // (max(map(len, labels)) + 8))
    lines = sum(len(wrap(label, _letters(figure)).splitlines()) for label in labels) / columns
    height = 0.135 * (lines + len(title.splitlines())) + 0.05 * len(labels) / columns  # inches
    figure.set_figheight(figure.get_figheight() + height + 0.2)
    return {"loc": "outside lower left", "ncols": columns, "title": title or None}


def line_of(found: Sequence[Setting]) -> str:
    """The field that a line over densities is of: a p, unless each p has one k, whose line would be a point."""
    places = {(setting.value("er_p"), setting.value("k")) for setting in found}
    return "er_p" if len(places) > len({p for p, _ in places}) else "k"


def values_of(found: Sequence[Setting], name: str) -> list[Any]:
    """The values of a field, in the order of their lines."""
    return sorted({setting.value(name) for setting in found}, reverse=name == "er_p",
                  key=lambda value: (vague(value), str(type(value)), value))


def lines_by(found: Sequence[Setting], name: str, values: Sequence[Any]) -> list[tuple[str, str, list[Setting]]]:
    """The settings by the value of a field, each group sorted by final density, with a colour and a marker that only the
    value's place among `values` decides: the same in each panel."""
    lines = [(COLOURS[place % 8], MARKERS[(place + place // 8) % 8],
              sorted((setting for setting in found if setting.value(name) == value), key=lambda setting: setting.final_density))
             for place, value in enumerate(values)]
    return [line for line in lines if line[2]]


def bars(panel: Axes, x: Sequence[float], means: Sequence[Mean], colour: str, marker: str, label: str, style: str = "-") -> None:
    """Means with their 95% intervals as thin bars, which hide no line; those of lines that are not solid are thinner."""
    thin, faint = (0.8, 1.0) if style == "-" else (0.5, 0.5)
    panel.errorbar(x, [value.value for value in means], [value.half or 0 for value in means], color=colour, marker=marker,
                   linestyle=style, label=label, markersize=4, linewidth=1.4 if style == "-" else 1.0, elinewidth=thin,
                   ecolor=(colour, faint), capsize=2 if style == "-" else 0, capthick=thin)


def entitle(panel: Axes, title: str) -> None:
    """A title of a size that stays within a panel of three in a row."""
    panel.set_title(wrap(title, 40), fontsize=SMALL)


def group_title(group: Sequence[Setting], without: Sequence[str]) -> str:
    """What the settings of a panel share, but for the factors `without`. Of those that each comparison has the words alone."""
    first = group[0]
    if first.usual:
        return first.label(without) or "nothing changed"
    return ", ".join(value if isinstance(value, str) and name in FIRST else f"{name} {show(value)}".replace("er_p", "p")
                     for name, value in first.factors.items() if name not in without)


def short_label(setting: Setting, without: Sequence[str] = ()) -> str:
    """The name of a setting's line: its factors, but for those that are as usual."""
    return setting.label(without).replace("er_p", "p") or ("nothing changed" if setting.usual else "all")
