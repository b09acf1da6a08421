"""A bar of a search's epochs, in a notebook, where a line an epoch would be in the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from popup.lab.measure import fitted
from popup.lab.training.state import Metrics


def in_notebook() -> bool:
    """Whether this program is a kernel's."""
    return "ipykernel" in sys.modules


@contextmanager
def epoch_bar(epochs: int, on_epoch: Callable[[Metrics], None]) -> Iterator[Callable[[Metrics], None]]:
    """What to call with each epoch's metrics: `on_epoch`, which in a notebook a bar goes on with."""
    if not in_notebook():
        yield on_epoch
        return
    from tqdm.auto import tqdm  # half a second of import that no other program needs

    with tqdm(total=epochs, unit="epoch") as bar:
        def tell(metrics: Metrics) -> None:
            bar.update(metrics["epoch"] - bar.n)
            measure = fitted(metrics)
            bar.set_postfix_str(measure.text(metrics[measure.column]))
            on_epoch(metrics)

        yield tell
