"""The command line made of the config's dataclasses: tyro reads a mirror of them whose help is each field's own.

A field with "axis" in its metadata takes several values on the command line: their product is the grid of a sweep.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any

from popup.errors import UsageError, check_count, check_name, check_number
from popup.lab.cluster import Cluster
from popup.lab.commands.calling import call_tyro
from popup.lab.commands.help import Help, option_of, options_of
from popup.lab.commands.unused import check_matters, check_together, given_options, option
from popup.lab.config import Config
from popup.lab.data.datasets import settled_name
from popup.lab.machine import Machine
from popup.lab.program import program
from popup.lab.recipes import DEFAULT, RECIPES, recipe, unasked
from popup.lab.runs.controls import CONTROLS

T = typing.TypeVar("T")
MOST_RUNS = 100_000   # of a grid, without its controls: each has a directory


@dataclass(frozen=True)
class Start:
    """What the defaults of the other options are."""

    recipe: str = field(default=DEFAULT, metadata={
        "help": "named settings that become the defaults of the other options; what is given beside it wins "
                "(python run.py recipes shows them)", "choices": tuple(RECIPES)})


@dataclass(frozen=True)
class Output:
    """Where results go, and how many seeds."""

    seeds: int = field(default=1, metadata={"help": "number of seeds, counted up from --seed"})
    final_density: tuple[float, ...] = field(default=(), metadata={
        "help": "in place of --k: final densities d, so that k = d/p; where d > p the cell is impossible and skipped"})
    controls: tuple[str, ...] = field(default=("default",), metadata={
        "help": f"what tickets are compared with: any of {', '.join(CONTROLS)}; all, none, or default (in a sweep the first "
                f"{sum(control.usual for control in CONTROLS.values())}, none in a single run)"})
    workers: int = field(default=0, metadata={
        "help": "processes of a sweep, or jobs with --cluster; 0: what fits the machine, with --cluster slurm a job a run (at "
                "most 64)"})
    plan_only: bool = field(default=False, metadata={
        "help": "write the grid into --out and end; any number of `python run.py worker DIR` then do it"})
    out: str = field(default="runs", metadata={"help": "directory of the results; a run is DIR/<hash of its config>"})

    def __post_init__(self) -> None:
        check_count("seeds", self.seeds)
        check_count("workers", self.workers, 0)
        if not self.out:
            raise UsageError("out is '': name a directory, . for the one you are in")
        for density in self.final_density:
            check_number("final_density", density, 0.0, 1.0, open_low=True)
        for name in self.controls:
            check_name("control", name, [*CONTROLS, "all", "none", "default"])

    def roles(self, sweep: bool) -> list[str]:
        """The controls that are asked for, in the registry's order."""
        if not self.controls or "none" in self.controls or (self.controls == ("default",) and not sweep):
            return []
        return [role for role, control in CONTROLS.items() if role in self.controls or "all" in self.controls
                or (control.usual and "default" in self.controls)]


@dataclass(frozen=True)
class Request:
    """What the command line asks for: the configs of the grid, seeds varying fastest, and where to do it."""

    configs: list[Config]
    impossible: list[tuple[float, float]]  # (p, final density) pairs with no k in (0, 1]
    output: Output
    machine: Machine
    cluster: Cluster
    recipe: str | None                     # the one that was asked for
    given: frozenset[str]                  # the fields that the command line names itself


def parse(arguments: Sequence[str], description: str, choices: Mapping[str, Sequence[str]]) -> Request:
    """The request of a command line. `choices` adds the allowed names of fields that only the caller knows."""
    groups: dict[str, type[Any]] = {"start": Start}
    groups |= {part.name: typing.cast("type[Any]", part.default_factory) for part in dataclasses.fields(Config)}
    groups |= {"output": Output, "machine": Machine, "cluster": Cluster}
    name = _recipe_named(arguments)
    settings = recipe(name or unasked(_last_value("dataset", arguments) or "") or DEFAULT).settings
    given = given_options(arguments)
    mirror = _mirror(groups, choices, settings, given | {"recipe"})  # tyro takes half a millisecond for each field
    shown = {f"{title} options": (kind.__doc__ or "", options_of(kind, choices, settings)) for title, kind in groups.items()}
    parsed = dataclasses.asdict(call_tyro(mirror, arguments, Help(program(), description, shown)))
    values = _defaults(groups, settings) | {name: value for group in parsed.values() for name, value in group.items()}
    for part in (part for kind in groups.values() for part in dataclasses.fields(kind) if "words" in part.metadata):
        values[part.name] = part.metadata["words"][1](values[part.name])
    check_together(given, values)
    values["dataset"] = settled_name(values["dataset"])
    output, machine = _take(Output, values), _take(Machine, values)
    _check_runs(values, groups, output)
    points = _points(values, groups)
    points, impossible = _with_final_density(points, output.final_density)
    names = Config.hints()
    configs = [Config.from_flat({name: value for name, value in point.items() if name in names}
                                | {"seed": point["seed"] + offset}) for point in points for offset in range(output.seeds)]
    usual, plain = (_defaults({"search": groups["search"]}, defaults) for defaults in (settings, {}))
    check_matters(configs, given, {name for name in usual if values[name] not in (usual[name], plain[name])})
    configs = list(dict.fromkeys(dataclasses.replace(config, search=config.search.settled()) for config in configs))
    return Request(configs, impossible, output, machine, _take(Cluster, values), name, given)


def _recipe_named(arguments: Sequence[str]) -> str | None:
    """The value of --recipe, which must be known before the other options have their defaults; None without one."""
    value = _last_value("recipe", arguments)
    if value is not None and (not value or value.startswith("-")):
        raise UsageError(f"--recipe has no name after it: pass one of {', '.join(RECIPES)}")
    return value


def _last_value(name: str, arguments: Sequence[str]) -> str | None:
    """What the command line says last of an option with one value, which the defaults of others depend on."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith(f"--{name}=") else [word])]
    return next((value for word, value in reversed([*itertools.pairwise([*words, "-"])]) if word == f"--{name}"), None)


def parse_groups(kinds: Sequence[type], arguments: Sequence[str], command: str) -> list[Any]:
    """The options of a subcommand, one instance of each of `kinds`; the first one's docstring is the description."""
    mirror = _mirror({kind.__name__.lower(): kind for kind in kinds}, {}, {})
    shown = {"options": ("", options_of(kinds[0], {}, {}))}
    shown |= {f"{kind.__name__.lower()} options": (kind.__doc__ or "", options_of(kind, {}, {})) for kind in kinds[1:]}
    parsed = dataclasses.asdict(call_tyro(mirror, arguments, Help(f"{program()} {command}", kinds[0].__doc__ or "", shown)))
    return [kind(**parsed[kind.__name__.lower()]) for kind in kinds]


def parse_as(kind: type[T], arguments: Sequence[str], command: str) -> T:
    """The options of a subcommand, `kind` being a flat dataclass whose fields have their help in their metadata."""
    import tyro  # needed by the command line only

    plain: Any = kind
    hints = typing.get_type_hints(kind)
    fields = [_mirror_field(tyro, part, hints[part.name], {}, {}) for part in dataclasses.fields(plain)]
    mirror = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    shown = Help(f"{program()} {command}", kind.__doc__ or "", {"options": ("", options_of(kind, {}, {}))})
    return kind(**dataclasses.asdict(call_tyro(mirror, arguments, shown)))


def _check_runs(values: Mapping[str, Any], groups: Mapping[str, type[Any]], output: Output) -> None:
    """A UsageError for a grid of more runs than a directory can be asked to hold."""
    axes = [part.name for kind in groups.values() for part in dataclasses.fields(kind) if part.metadata.get("axis")]
    runs = prod(len(set(values[name])) for name in axes) * max(1, len(set(output.final_density))) * output.seeds
    if runs > MOST_RUNS:
        raise UsageError(f"the grid has {runs:,} runs, with {output.seeds:,} seeds each, and controls beside: at most "
                         f"{MOST_RUNS:,} are taken; give fewer values or --seeds")


def _points(values: dict[str, Any], groups: Mapping[str, type[Any]]) -> list[dict[str, Any]]:
    """One set of field values for each combination of the axes' values."""
    axes = [part.name for kind in groups.values() for part in dataclasses.fields(kind) if part.metadata.get("axis")]
    for name in axes:
        if not values[name]:
            raise UsageError(f"--{option(name)} has no value: give one or more")
    products = itertools.product(*(dict.fromkeys(values[name]) for name in axes))
    return [{**values, **dict(zip(axes, product, strict=True))} for product in products]


def _with_final_density(points: list[dict[str, Any]],
                        densities: Sequence[float]) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """Each point once for each final density d <= p, with k = d/p; and the pairs (p, d) for which there is no k."""
    if not densities:
        return points, []
    possible, impossible = [], []
    for point in points:
        check_number("er_p", point["er_p"], 0.0, 1.0, open_low=True)
        for density in dict.fromkeys(densities):
            if density > point["er_p"]:
                impossible.append((point["er_p"], density))
            else:
                possible.append({**point, "k": float(f"{density / point['er_p']:.12g}")})
    return possible, list(dict.fromkeys(impossible))


def _take(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{part.name: values[part.name] for part in dataclasses.fields(kind)})


def _defaults(groups: Mapping[str, type[Any]], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What the options are where the command line does not name them, as a mirror has them."""
    return {part.name: _default(part, defaults) for kind in groups.values() for part in dataclasses.fields(kind)
            if not part.metadata.get("hidden")}


def _default(part: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> Any:
    default = defaults.get(part.name, part.default)
    if "words" in part.metadata:
        default = part.metadata["words"][0](default)
    return (default,) if part.metadata.get("axis") else default


def _mirror(groups: Mapping[str, type[Any]], choices: Mapping[str, Sequence[str]], defaults: Mapping[str, Any],
            only: Collection[str] | None = None) -> type:
    """A dataclass of dataclasses like `groups`, in the form tyro reads: help in annotations, axes as tuples. `defaults`
    take the place of the fields' own; `only`: the fields that are read, else all."""
    import tyro  # needed by the command line only

    parts = []
    for name, kind in groups.items():
        hints = typing.get_type_hints(kind)
        fields = [_mirror_field(tyro, part, hints[part.name], choices, defaults) for part in dataclasses.fields(kind)
                  if not part.metadata.get("hidden") and (only is None or part.name in only)]
        mirrored = dataclasses.make_dataclass(name, fields, frozen=True, namespace={"__doc__": kind.__doc__})
        parts.append((name, mirrored, field(default_factory=mirrored)))
    whole: Any = dataclasses.make_dataclass("Arguments", parts, frozen=True)
    for mark in (tyro.conf.HelptextFromCommentsOff, tyro.conf.OmitArgPrefixes):  # the first: no source is looked through
        whole = mark[whole]
    return whole


def _mirror_field(tyro: Any, part: dataclasses.Field[Any], kind: Any, choices: Mapping[str, Sequence[str]],
                  defaults: Mapping[str, Any]) -> tuple[str, Any, Any]:
    default = _default(part, defaults)
    if "words" in part.metadata:
        kind = tuple[str, ...]
    if part.metadata.get("axis"):
        kind = tuple[kind, ...]
    shown = option_of(part, kind, choices, defaults)
    positional = bool(part.metadata.get("positional"))
    plain = tyro.conf.arg(help=shown.text, metavar=None if kind is bool else shown.name if positional else shown.value)
    notes = (plain, tyro.conf.Positional) if positional else (plain,)
    return part.name, Annotated[(kind, *notes)], field() if default is dataclasses.MISSING else field(default=default)
