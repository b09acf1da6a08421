"""The rows of `bench` beside its networks': each group measures, prints as it goes, and gives what bench.json holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from popup.lab.bench.bench import Build, Figure
from popup.lab.bench.calls import P as CALLS_P
from popup.lab.bench.calls import count_calls
from popup.lab.bench.peers import PEERS
from popup.lab.bench.small_networks import NETWORKS, SmallCost, time_small
from popup.lab.bench.small_networks import P as SMALL_P
from popup.lab.bench.wide_networks import DENSITIES, IMAGE, WIDTHS, WideCost, ticks, time_wide
from popup.lab.config import Config
from popup.lab.networks import Models, build_network
from popup.lab.report.tables import table

CLASSES = 10
COUNTED, PICTURE = "resnet18", (3, 32, 32)


def builder_of(models: Models, image: Sequence[int], model: str, widths: tuple[int, ...] = ()) -> Build:
    """What builds the network of that name, as a run does."""
    return partial(build_network, models, Config.from_flat({"model": model, "widths": widths}), image, CLASSES)


def small_networks(models: Models, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Time the steps of small networks."""
    with tqdm(total=len(NETWORKS) * (rounds + 1), disable=None, leave=False, desc="small networks") as bar:
        rows = list(time_small(lambda model, image: builder_of(models, image, model), device, rounds, bar.update,
                               networks=NETWORKS))
    lines = [_small_line(row, figure) for row in rows for figure in row.figures]
    print(f"small networks, fp32, popup at p = {SMALL_P:g}: ratios to the dense step\n" + table(
        ["network", "", "ratio", "quartiles", "ms", "clock"], lines, left=2) + "\n", flush=True)
    return [asdict(row) for row in rows]


def _small_line(row: SmallCost, figure: Figure) -> list[str]:
    network = row.network
    name = f"{network.model} at {'x'.join(map(str, network.image))}, batch {network.batch}"
    if network.threads == 1:
        name += ", one thread"
    return [name if figure is row.figures[0] else "", figure.name, *_times(figure), row.clock]


def wide_networks(models: Models, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Time the steps of wide MLPs at falling density, and find what memory they take."""
    if device.type != "cpu":
        print(f"wide MLPs: left out, since sparse compute is for the CPU and this is {device}\n")
        return []
    asked = WIDTHS, DENSITIES, rounds
    with tqdm(total=ticks(*asked), disable=None, leave=False, desc="wide MLPs") as bar:
        found = list(time_wide(lambda width: builder_of(models, IMAGE, "mlp", (width, width)), *asked, bar.update))
    for width in WIDTHS:
        rows = [row for row in found if row.width == width]
        print(f"mlp {width}-{width} at {'x'.join(map(str, IMAGE))}, batch {rows[0].batch}, fp32, as p falls: ratios to the dense "
              f"step, in {rows[0].clock} time and in peak memory\n" + table(
                  ["p", "", "ratio", "quartiles", "ms", "memory", "MB"],
                  [[f"{row.p:g}" if figure is row.figures[0] else "", figure.name, *_times(figure), *_memory(row, place)]
                   for row in rows for place, figure in enumerate(row.figures)], left=2))
        print("".join(f"{line}\n" for line in filter(None, (peer.missing() for peer in PEERS))), flush=True)
    return [asdict(row) for row in found]


def _times(figure: Figure) -> list[str]:
    return [f"{figure.ratio:.3f}", f"{figure.low:.3f}-{figure.high:.3f}", f"{figure.seconds * 1e3:.2f}"]


def _memory(row: WideCost, place: int) -> list[str]:
    """A figure's peak memory over the dense step's, and itself in MB; nothing where it is not known, or too little to be seen."""
    dense, own = row.memory[0], row.memory[place]
    return ["-", "-"] if not dense or own is None else [f"{own / dense:.3f}", f"{own / 1e6:.1f}"]


def calls_of_a_step(models: Models) -> dict[str, Any]:
    """Count the calls of a step."""
    found = count_calls(builder_of(models, PICTURE, COUNTED), PICTURE)
    print(f"calls a step, {COUNTED}: forward and backward pass of the dense network {found.dense}; popup at p = {CALLS_P:g} adds "
          f"{found.added} for selection, effective weights and score gradients of {found.layers} layers\n", flush=True)
    return {"model": COUNTED, **asdict(found)}
