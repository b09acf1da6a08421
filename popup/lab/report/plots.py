"""Pictures of a run. Colours are Okabe and Ito's, which the colour-blind can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from popup.files import write_atomically
from popup.lab.config import Config
from popup.lab.report.pictures import png

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")


def plot_training(path: Path, history: list[dict[str, Any]], config: Config, title: str) -> None:
    """Loss and accuracy by epoch, side by side."""
    from matplotlib.figure import Figure  # half a second of import that only pictures need

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7.2, 2.8), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) == 1 else ""  # a line of one point would not be seen
    smoothing = config.training.label_smoothing  # which makes the loss that is trained larger than what it is measured by
    left.plot(epochs, [row["train_loss"] for row in history], color=BLUE, marker=marker,
              label=f"training, label smoothing {smoothing:g}" if smoothing else "training")
    left.plot(epochs, [row["test_loss"] for row in history], color=ORANGE, linestyle="--", marker=marker,
              label=config.task.evaluated_on)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    left.legend(frameon=False)
    right.plot(epochs, [row["test_accuracy"] for row in history], color=ORANGE, marker=marker)
    right.set(xlabel="epoch", ylabel=f"{config.task.evaluated_on} accuracy (%)")
    right.annotate(f"last epoch: {history[-1]['test_accuracy']:.2f}%", (1, 0.05), xycoords="axes fraction", ha="right")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
    source = config.source
    figure.suptitle(f"{config.task.model} on {title}: ER p = {source.er_p:g} ({source.density}), k = {source.k:g}, "
                    f"seed {source.seed}", fontsize=10)
    write_atomically(path, png(figure))
