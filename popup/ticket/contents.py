"""What a ticket's metadata may hold: every value is checked before it is used. All raise ValueError with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from math import prod, sqrt
from typing import Any, get_args, get_origin, get_type_hints

from popup.search.settings import SearchSettings
from popup.source.layers import MOST_LAYERS, MOST_SIDES, Layer, weight_of
from popup.source.maskable import Sides
from popup.source.masks import share
from popup.source.recipe import GIVEN, LATER, SOURCE, Recipe
from popup.ticket.sealed import finite

MOST_ENTRIES = 1 << 33     # of one layer; the largest known have 2**30
MOST_CONSTANTS = 1 << 24   # biases and norm affines, beyond one for each entry of the layers
FIRST = {"er_p", "k", "density", "redistribute", "mask", "weights", "scale", "gain", "seed",  # what every file says
         "method", "scope", "score_scale"}
LAYER_FIELDS = {"name": str, "shape": list, "p_l": float, "edges": int, "kept": int, "coded": bool,
                "edges_hash": str, "weights_hash": str, "mask_hash": str}
LATER_FIELDS = {"sides": dict, "also": list,  # of layers whose shape does not say what they connect, or that have several names
                "k": float}  # where the ticket has a density of its own


def check_fields(what: str, value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """`value` as an object with just the fields of `kinds`, each of its type (whole numbers pass for floats)."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {type(value).__name__}, not an object")
    for name in sorted(value.keys() ^ kinds.keys()):
        raise ValueError(f"{what} {'has the unknown field' if name in value else 'lacks the field'} {name!r}"
                         f"{': a later version wrote it?' if name in value else ''}")
    for name, kind in kinds.items():
        kinds_of = get_args(kind) or (kind,)
        if not any(finite(value[name]) if one is float else type(value[name]) is one for one in kinds_of):
            raise ValueError(f"{name} in {what} is {value[name]!r:.80}, not {' or '.join(one.__name__ for one in kinds_of)}")
    return value


def recipe(value: Any) -> Recipe:
    """The recipe of a file's record."""
    kinds = {name: tuple if get_origin(kind) is tuple else kind for name, kind in get_type_hints(Recipe).items()}
    whole = _with_later(Recipe, value)
    if isinstance(whole, dict):
        whole = {name: _names(part) if kinds.get(name) is tuple else part for name, part in whole.items()}
    return Recipe(**check_fields("recipe", whole, kinds))


def settings(value: Any) -> SearchSettings:
    """The search settings of a file's record. What it leaves out is as it was before there was a word for it, or does not matter,
    and is then the usual."""
    found = SearchSettings(**check_fields("settings", _with_later(SearchSettings, value), get_type_hints(SearchSettings)))
    usual: dict[str, Any] = {part.name: part.default for part in fields(found) if part.name not in {*value, *found.used()}}
    return replace(found, **usual)


def _names(value: Any) -> Any:
    """A list of names as a tuple; what is none stays, and is refused."""
    return tuple(value) if isinstance(value, list) and all(isinstance(name, str) and name for name in value) else value


def _with_later(kind: type, value: Any) -> Any:
    """A record of before some fields were there has what was done then: mostly their defaults."""
    later = {field.name: field.metadata.get(LATER, field.default) for field in fields(kind) if field.name not in FIRST}
    return {**later, **value} if isinstance(value, dict) else value


def layer(value: Any, source: Recipe, before: Layer | None) -> tuple[Layer, dict[str, Any]]:
    """A layer and its record, with a number of edges that its shape and p_l can have. `before`: the one that precedes it, a
    bias's weight."""
    later = {name: kind for name, kind in LATER_FIELDS.items() if isinstance(value, dict) and name in value}
    record = check_fields("a layer", value, LAYER_FIELDS | later)
    if not record["name"].isprintable():
        raise ValueError(f"a layer has the name {record['name']!r:.80}")
    weight = weight_of(record["name"], before) if source.searches_biases else None
    shape = check_shape(record["name"], record["shape"], *((1, 1) if weight else (2, MOST_SIDES)))
    found = Layer(record["name"], shape, weight, sides=_sides(record, shape), also=_also(record))
    p_l, edges = record["p_l"], record["edges"]
    if not (0 < p_l <= 1 or (p_l == 0 and not source.draws_edges)):
        raise ValueError(f"p_l of {found.name} is {p_l!r}: it must be in (0, 1]")
    if (source.ticket_density == SOURCE) == ("k" in record) or not 0 < record.get("k", 1) <= 1:
        raise ValueError(f"k of {found.name} is {record.get('k')!r}, where ticket_density is {source.ticket_density!r}")
    low, high = _edge_range(source, found.entries, p_l)
    if not max(0, low) <= edges <= min(high, found.entries):
        raise ValueError(f"{found.name} has {edges} edges: shape {list(found.shape)} at p_l {p_l:g} gives {low} to {high}")
    if not min(1, edges) <= record["kept"] <= edges:
        raise ValueError(f"{found.name} keeps {record['kept']} of {edges} edges")
    for name in ("edges_hash", "weights_hash", "mask_hash"):
        if not re.fullmatch("[0-9a-f]{64}", record[name]):
            raise ValueError(f"{name} of {found.name} is no SHA-256")
    return found, record


def of_spec(layer: Layer) -> dict[str, Any]:
    """What a layer's record says beside its name and shape, of a layer that is not as most are."""
    sides = {} if layer.sides is None else {"sides": {**asdict(layer.sides), "kernel": list(layer.sides.kernel)}}
    return sides | ({"also": list(layer.also)} if layer.also else {})


def _sides(record: Mapping[str, Any], shape: tuple[int, ...]) -> Sides | None:
    """What a layer connects, where its record says so."""
    if "sides" not in record:
        return None
    value = check_fields("sides", record["sides"], {"outputs": int, "inputs": int, "kernel": list, "fan_in": float,
                                                    "inputs_first": bool})
    outputs, inputs = check_shape(f"sides of {record['name']}", [value["outputs"], value["inputs"]], 2, 2)
    kernel = check_shape(f"kernel of {record['name']}", value["kernel"], 0, 3)
    found = Sides(outputs, inputs, kernel, value["fan_in"], value["inputs_first"])
    if prod(shape) % found.entries or not 0 < found.fan_in <= prod(shape):
        raise ValueError(f"sides of {record['name']} are not those of a weight of shape {list(shape)}")
    return found


def _also(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The further names of a layer's tensor."""
    names = tuple(record.get("also", ()))
    if not all(isinstance(name, str) and name.isprintable() for name in names) or ("also" in record and not names):
        raise ValueError(f"the further names of {record['name']} are {names!r:.80}")
    return names


def _edge_range(source: Recipe, entries: int, p_l: float) -> tuple[int, int]:
    """The numbers of edges that there can be: one if a draw is exact or p_l realised, else ten deviations about the mean."""
    if source.mask == "exact" or not source.draws_edges or p_l == 1:
        return share(p_l, entries), share(p_l, entries)
    slack = 10 * sqrt(entries * p_l * (1 - p_l)) + 32
    return int(entries * p_l - slack), int(entries * p_l + slack)


def check_densities(source: Recipe, layers: Sequence[Layer], p_l: Sequence[float], edges: Sequence[int]) -> None:
    """The p_l of a named density are those that its rule gives these layers; those of a mask that is stored are its own."""
    if len({each.name for each in layers}) != len(layers) or not layers:
        raise ValueError(f"there are {len(layers)} layers, some of one name" if layers else "there is no layer")
    if not source.draws_edges:
        _check_realised(source, layers, p_l, edges)
    if source.density == GIVEN or not source.draws_edges:
        return
    for each, found, wanted in zip(layers, p_l, source.densities(layers), strict=True):
        if abs(found - wanted) > 1e-9 * wanted:
            raise ValueError(f"p_l of {each.name} is {found!r}: {source.density} at er_p {source.er_p:g} gives {wanted!r}")


def check_shares(source: Recipe, layers: Sequence[Layer], p_l: Sequence[float], shares: Sequence[float | None]) -> None:
    """The k of each layer is what the ticket's density gives it."""
    for each, found, wanted in zip(layers, shares, source.shares(layers, p_l, source.k), strict=True):
        if found is not None and abs(found - wanted) > 1e-9 * wanted:
            raise ValueError(f"k of {each.name} is {found!r}: {source.ticket_density} at k {source.k:g} gives {wanted!r}")


def _check_realised(source: Recipe, layers: Sequence[Layer], p_l: Sequence[float], edges: Sequence[int]) -> None:
    """Each p_l is edges / entries, and the whole is the er_p that the recipe has: to the edge for a criterion."""
    for each, found, count in zip(layers, p_l, edges, strict=True):
        if found != count / each.entries:
            raise ValueError(f"p_l of {each.name} is {found!r}: {count} edges of {each.entries} have another density")
    entries, count = sum(each.entries for each in layers), sum(edges)
    if source.er_p != count / entries if source.mask == GIVEN else share(source.er_p, entries) != count:
        raise ValueError(f"{count} edges of {entries} weights are not er_p {source.er_p!r}")


def constants(value: Any, entries: int) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Biases and norm affines by name, in all no more values than the network's `entries` account for."""
    if not isinstance(value, dict):
        raise ValueError("constants are no object")
    found = {}
    for name, pair in value.items():
        wanted = 0 if name.endswith("bias") else 1
        if not (isinstance(pair, list) and len(pair) == 2 and finite(pair[0]) and pair[0] == wanted):
            raise ValueError(f"the constant {name!r} is not [{wanted}, shape]")
        found[name] = (float(pair[0]), check_shape(name, pair[1], 0, MOST_SIDES, smallest=0))
    if sum(prod(shape) for _, shape in found.values()) > entries + MOST_CONSTANTS:
        raise ValueError("the constants are larger than the network")
    return found


def records(value: Any) -> list[Any]:
    """The layers' records, of which there may be no more than a network can have."""
    if not isinstance(value, list):
        raise ValueError(f"layers is {type(value).__name__}, not a list")
    if len(value) > MOST_LAYERS:
        raise ValueError(f"it says {len(value):,} layers, and a network may have {MOST_LAYERS:,}")
    return value


def check_shape(name: str, value: Any, least: int, most: int, smallest: int = 1) -> tuple[int, ...]:
    """A tuple of `least` to `most` sizes, each at least the `smallest`, of at most MOST_ENTRIES in all."""
    sizes = isinstance(value, list) and all(type(size) is int and smallest <= size <= MOST_ENTRIES for size in value)
    if not (sizes and least <= len(value) <= most and prod(size or 1 for size in value) <= MOST_ENTRIES):
        raise ValueError(f"the shape of {name!r} is {value!r:.80}")
    return tuple(value)
