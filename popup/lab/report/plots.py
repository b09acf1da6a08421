"""The picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from popup.files import write_atomically
from popup.lab.config import Config
from popup.lab.measure import measured
from popup.lab.report.curves import least_loss
from popup.lab.report.look import BLUE, LOOK, ORANGE
from popup.lab.report.pictures import png
from popup.lab.report.scales import whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_training(path: Path, history: list[dict[str, Any]], config: Config, title: str, classes: int) -> None:
    """Loss and accuracy by epoch, side by side. Both losses are the divergence from their targets, so that they can be compared:
    the least that smoothed targets leave is taken off."""
    from matplotlib import rc_context  # half a second of import that only pictures need

    with rc_context(LOOK):
        figure = _figure(history, config, title, least_loss(config.training.label_smoothing, classes))
        content = png(figure)
    write_atomically(path, content)


def _figure(history: list[dict[str, Any]], config: Config, title: str, least: float) -> Figure:
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7.2, 2.8), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) == 1 else ""  # a line of one point would not be seen
    smoothing = config.training.label_smoothing
    left.plot(epochs, [row["train_loss"] - least for row in history], color=BLUE, marker=marker,
              label=f"training, above the {least:.3f} that smoothing leaves" if smoothing else "training")
    left.plot(epochs, [row["test_loss"] for row in history], color=ORANGE, marker=marker,
              label=config.task.evaluated_on)
    seen = any(row[name] > 0 for row in history for name in ("train_loss", "test_loss"))  # of one class there is none
    left.set(xlabel="epoch", ylabel="loss (nats)", yscale="log" if seen else "linear")
    left.legend(frameon=False)
    measure = measured(history[-1])
    values = [row[measure.column] for row in history]
    right.plot(epochs, values, color=ORANGE, marker=marker)
    right.set(xlabel="epoch", ylabel=f"{config.task.evaluated_on} {measure.name} ({measure.unit.strip()})")
    right.annotate(f"last epoch: {measure.text(values[-1])}", (1, 0.05), xycoords="axes fraction", ha="right")
    for axes in (left, right):
        whole_numbers(axes.xaxis)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
    source = config.source
    figure.suptitle(f"{config.task.model} on {title}: ER p = {source.er_p:g} ({source.density}), k = {source.k:g}, "
                    f"seed {source.seed}", fontsize=10)
    return figure
