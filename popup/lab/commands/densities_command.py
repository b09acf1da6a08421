"""python run.py densities: the layerwise rules side by side: p_l of each layer, and the edges that its units get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from torch import nn

from popup.errors import UsageError, check_count, check_name
from popup.files import write_atomically
from popup.lab.commands.arguments import parse_as
from popup.lab.config import Config
from popup.lab.data.text import CONTEXT, TOKENS
from popup.lab.inputs import Window
from popup.lab.networks import Models, build_network, is_own, outline
from popup.lab.report.axes import WIDE
from popup.lab.report.cuts import UNLESS
from popup.lab.report.layer_figures import READ, Line, draw_layers, short_names
from popup.lab.report.look import LOOK, themed
from popup.lab.report.pictures import png, svg
from popup.lab.report.tables import WIDTH, fit, table
from popup.lab.runs.directory import check_writable
from popup.lab.text import printable
from popup.search.share import refuse_grouped
from popup.source.degrees import Degrees, count_degrees
from popup.source.densities import DENSITIES
from popup.source.layer_source import draw_edges
from popup.source.layers import Layer, find_layers
from popup.source.masks import MASKS
from popup.source.recipe import Recipe

SIDES = {"imagenet_": 224}  # of the images of networks that are named so
WINDOWS = {"gpt": CONTEXT}  # tokens of the windows of networks that are named so
DEFAULT_SIDE, CLASSES = 32, 10


def _of_recipe(name: str) -> Any:
    """The field of a run's recipe that has that name, as an option here."""
    part = Recipe.__dataclass_fields__[name]
    return field(default=part.default, metadata={"help": part.metadata["help"]})


@dataclass(frozen=True)
class DensitiesOptions:
    """Compare the layerwise densities on a network: p_l of each layer, the edges into and out of its units as expected and as
    drawn, dead units, and layers without any edge, at which a network is cut, unless
    a shortcut leads by."""

    model: str = field(default="resnet18", metadata={
        "help": "network, by a name as in a run, torchvision:NAME, timm:NAME, chain:WORDS, or MODULE:FUNCTION"})
    er_p: float = field(default=0.1, metadata={"help": "ER density p in (0, 1]"})
    density: tuple[str, ...] = field(default=tuple(DENSITIES), metadata={
        "help": "the rules to compare", "choices": tuple(DENSITIES)})
    image: tuple[int, ...] = field(default=(), metadata={
        "help": "channels, height and width of the images, or the number of features; none: 3 32 32, of imagenet_ networks "
                "3 224 224"})
    window: int = field(default=0, metadata={
        "help": f"tokens of a window, of networks that read a text, in place of --image; 0: none, of gpt {CONTEXT}"})
    classes: int = field(default=0, metadata={"help": f"outputs of the network; 0: {CLASSES}, of windows {TOKENS}"})
    widths: tuple[int, ...] = field(default=(), metadata={"help": "hidden widths or channels; none: the network's own"})
    width: float = field(default=1.0, metadata={"help": "factor on all hidden widths and channels"})
    redistribute: bool = field(default=True, metadata={
        "help": "spread what a full layer cannot take over the others, so that the total is p"})
    mask: str = field(default="bernoulli", metadata={
        "help": "edges drawn independently, or exactly p_l of each layer's entries", "choices": tuple(MASKS)})
    connected: bool = _of_recipe("connected")
    seed: int = field(default=0, metadata={"help": "seed of the edges"})
    skip: tuple[str, ...] = _of_recipe("skip")
    only: tuple[str, ...] = _of_recipe("only")
    out: str = field(default="densities", metadata={"help": "directory of densities.png, .svg and .json"})

    def __post_init__(self) -> None:
        if not self.density:
            raise UsageError("--density has no value: give one or more")
        check_name("mask", self.mask, MASKS)
        check_count("window", self.window, 0)
        check_count("classes", self.classes, 0)
        if self.window and self.image:
            raise UsageError(f"--window {self.window} is given beside --image: a network reads windows of tokens, or images")
        for side in self.image:
            check_count("a side of the image", side)
        if len(self.image) not in (0, 1, 3):
            raise UsageError(f"image is {' '.join(map(str, self.image))}: give channels, height and width, such as 3 32 32, or "
                             "one number of features")


@dataclass(frozen=True)
class Rule:
    """A layerwise density on a network."""

    name: str
    degrees: tuple[Degrees, ...]

    @property
    def line(self) -> Line:
        """It as the picture has it."""
        return Line(self.name, tuple(one.layer.name for one in self.degrees), tuple(one.p_l for one in self.degrees),
                    tuple(one.edges / one.layer.entries for one in self.degrees), degrees=self.degrees)


def densities(arguments: Sequence[str], models: Models) -> int:
    """python run.py densities"""
    options = parse_as(DensitiesOptions, arguments, "densities")
    layers = find_layers(_network(options, models), skip=options.skip, only=options.only)
    rules = [_drawn(name, layers, options) for name in dict.fromkeys(options.density)]
    out = check_writable(Path(options.out))
    entries = sum(layer.entries for layer in layers)
    print(f"{options.model}: {entries:,} weights in {len(layers)} layers, p = {options.er_p:g}, seed {options.seed}\n")
    print(f"{_layer_table(rules, layers)}\n\n{_rule_table(rules)}")
    for rule in rules:
        if cut := [one.layer.name for one in rule.degrees if one.cut]:
            print(f"{rule.name}: no edge was drawn in {', '.join(cut)}: the network is cut there{UNLESS}")
    _write(rules, out)
    print(f"\n{fill(READ, WIDTH)}\nwritten to {printable(out)}/: densities.png densities.svg densities.json")
    return 0


def _network(options: DensitiesOptions, models: Models) -> nn.Module:
    side, window = (next((size for start, size in sizes.items() if options.model.startswith(start)), default)
                    for sizes, default in ((SIDES, DEFAULT_SIDE), (WINDOWS, 0)))
    window = options.window or window * (not options.image)
    image = Window((window,)) if window else options.image or (3, side, side)
    classes = options.classes or (TOKENS if window else CLASSES)
    config = Config().replace(model=options.model, widths=options.widths, width=options.width, seed=options.seed)
    found = None if is_own(options.model) else outline(models, config, image, classes)  # a function may keep what it makes
    return build_network(models, config, image, classes) if found is None else found


def _drawn(name: str, layers: Sequence[Layer], options: DensitiesOptions) -> Rule:
    """The rule's source: its densities, and its edges counted."""
    recipe = Recipe(er_p=options.er_p, density=name, redistribute=options.redistribute, mask=options.mask, seed=options.seed,
                    connected=options.connected)
    refuse_grouped(layers, recipe)
    try:
        return Rule(name, tuple(count_degrees(layer, p_l, draw_edges(recipe, layer, p_l), recipe.connected)
                                for layer, p_l in zip(layers, recipe.densities(layers), strict=True)))
    except UsageError as error:
        raise UsageError(f"--density {name}: {error}") from None


def _layer_table(rules: Sequence[Rule], layers: Sequence[Layer]) -> str:
    """p_l of each layer by each rule."""
    names = short_names([layer.name for layer in layers], 34)
    rows = [[name, f"{layer.entries:,}", *(f"{rule.degrees[place].p_l:.4f}" for rule in rules)]
            for place, (name, layer) in enumerate(zip(names, layers, strict=True))]
    return table(["p_l of layer", "entries", *(rule.name for rule in rules)], rows)


def _rule_table(rules: Sequence[Rule]) -> str:
    """What each rule comes to: its total, and the units and layers that it leaves without an edge."""
    rows = []
    for rule in rules:
        every = rule.degrees
        entries, edges = sum(one.layer.entries for one in every), sum(one.edges for one in every)
        asked = sum(one.p_l * one.layer.entries for one in every)
        rows.append([rule.name, f"{asked / entries:.4f}", f"{edges / entries:.4f}", f"{min(one.p_l for one in every):.4f}",
                     f"{min(int(one.into.min()) for one in every):,}",
                     _counts(sum(one.unfed for one in every), sum(one.expected_unfed for one in every)),
                     _counts(sum(one.unheard for one in every), sum(one.expected_unheard for one in every)),
                     str(sum(one.cut for one in every))])
    return fit(["rule", "p, asked for", "p, drawn", "least p_l", "fewest edges into a unit", "dead units (expected)",
                "inputs without an edge (expected)", "cut layers"], rows)


def _counts(found: int, expected: float) -> str:
    return f"{found:,} ({expected:,.1f})"


def _write(rules: Sequence[Rule], out: Path) -> None:
    """The picture, and its numbers."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        figure = draw_layers([rule.line for rule in rules], WIDE)
        write_atomically(out / "densities.png", png(figure))
        write_atomically(out / "densities.svg", themed(svg(figure, "densities")).encode())
    record = {rule.name: [_record(one) for one in rule.degrees] for rule in rules}
    write_atomically(out / "densities.json", (json.dumps(record, indent=1) + "\n").encode())


def _record(one: Degrees) -> dict[str, object]:
    """A layer's numbers."""
    return {"layer": one.layer.name, "shape": list(one.layer.shape), "p_l": one.p_l, "edges": one.edges,
            **{f"{name}_{side}": value for side, counts, expected in (("in", one.into, one.expected_into),
                                                                      ("out", one.out, one.expected_out))
               for name, value in (("expected", expected), ("least", int(counts.min())), ("mean", float(counts.mean())),
                                   ("most", int(counts.max())))},
            "dead_units": one.unfed, "expected_dead_units": one.expected_unfed,
            "inputs_without_edges": one.unheard, "expected_inputs_without_edges": one.expected_unheard}
