"""Reading a network with shortcuts or norms: its graph, followed from the input on, as the chain of layers that it equals."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from popup.theory.levels import Levels, Sum, Units
from popup.theory.steps import Step

Value = Units | Sum
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
OTHERS = (nn.LeakyReLU, nn.Tanh, nn.Sigmoid)  # activations that chains of layers may have
ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
RELUS = (torch.relu, F.relu, "relu", "relu_")
FLATTENS = (torch.flatten, "flatten", "view", "reshape")
ABOUT = (getattr, operator.getitem, "size")  # what is asked of a tensor for a view of it: shapes are followed anyhow


def traced(net: nn.Module) -> fx.GraphModule | None:
    """The network's graph; None if it is none, as where it asks for values."""
    try:
        return fx.symbolic_trace(net)
    except Exception:  # of somebody else's forward, whatever it may be
        return None


def branches(graph: fx.GraphModule) -> bool:
    """Whether it adds two values, or has a norm to fold: else its modules are a chain as they are called."""
    nodes = [node for node in graph.graph.nodes if node.op in ("call_function", "call_method")]
    adds = any(node.target in ADDS and all(isinstance(part, fx.Node) for part in node.args[:2]) for node in nodes)
    return adds or any(isinstance(module, NORMS) for module in graph.modules())


def follow(graph: fx.GraphModule, levels: Levels, step_of: Callable[[Any, tuple[int, int]], Step]) -> Value:
    """What the graph makes of `levels.input`. `step_of`: the step of a layer or pool on a map of these sides."""
    values: dict[fx.Node, Value] = {}

    def taken(node: fx.Node) -> list[Value]:
        found = [values[part] for part in node.args if isinstance(part, fx.Node) and part in values]
        if not found:
            raise levels.refuse(f"beside a shortcut or a norm {node.name} takes what is no value of a layer, or takes it by name")
        return found

    for node in graph.graph.nodes:
        if node.op == "output":
            return taken(node)[0]
        if node.op == "placeholder":
            values[node] = levels.input
        elif node.op == "call_module":
            values[node] = _module(levels, graph.get_submodule(node.target), taken(node)[0], step_of)
        elif node.op != "get_attr" and node.target not in ABOUT:
            values[node] = _function(levels, node, taken(node))
        if _relu_in_place(graph, node):
            before = taken(node)[0]
            values |= {other: values[node] for other, value in values.items() if value is before}
    raise levels.refuse("it has no output")


def _relu_in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a ReLU that writes to what it takes, so that whoever reads that later reads the same."""
    if node.op == "call_module":
        return bool(getattr(graph.get_submodule(str(node.target)), "inplace", False))  # a dropout's is itself in evaluation
    return node.target == "relu_" or (node.target in RELUS and True in (*node.args[1:], node.kwargs.get("inplace")))


def _function(levels: Levels, node: fx.Node, values: list[Value]) -> Value:
    if node.target in ADDS and len(values) == 2 and node.kwargs.get("alpha", 1) == 1:
        return levels.add(*values)
    if node.target in RELUS:
        return levels.relu(values[0])
    if node.target in FLATTENS and isinstance(values[0], Units):
        return levels.flatten(values[0])
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    raise levels.refuse(f"beside a shortcut or a norm it calls {name}")


def _module(levels: Levels, module: nn.Module, value: Value, step_of: Callable[[Any, tuple[int, int]], Step]) -> Value:
    if isinstance(module, (nn.Identity, nn.Dropout)):
        return value
    if isinstance(module, nn.ReLU):
        return levels.relu(value)
    if isinstance(module, NORMS):
        if isinstance(value, Sum):
            return value.scaled(*_folded(module))
        raise levels.refuse(f"its {type(module).__name__} stands behind no layer, nor the sum of a shortcut")
    if isinstance(module, OTHERS):
        raise levels.refuse(f"beside a shortcut or a norm an activation has to be a ReLU, and it has {type(module).__name__}")
    if isinstance(module, nn.Flatten) and isinstance(value, Units):
        return levels.flatten(value)
    if not isinstance(value, Units):
        raise levels.refuse(f"a {type(module).__name__} follows a layer, or a sum, with no ReLU between")
    sides = levels.sides(value.level, value.pools)
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return _layer(levels, module, value, step_of(module, sides))
    if value.flat or not isinstance(module, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        raise levels.refuse(f"it has a {type(module).__name__} there")
    return levels.pool(value, step_of(module, sides))


def _folded(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a norm multiplies each channel by, and adds, in evaluation mode."""
    if norm.running_var is None:
        return np.full(norm.num_features, np.nan), np.zeros(norm.num_features)  # of the batch: the comparison tells
    factor = 1 / np.sqrt(norm.running_var.double().cpu().numpy() + norm.eps)
    shift = -norm.running_mean.double().cpu().numpy() * factor
    if norm.weight is None:
        return factor, shift
    gain, bias = (parameter.detach().double().cpu().numpy() for parameter in (norm.weight, norm.bias))
    return factor * gain, shift * gain + bias


def _layer(levels: Levels, module: Any, units: Units, step: Step) -> Sum:
    if step.kind == "linear" and not units.flat:
        units = levels.flatten(units)
    taps = prod(levels.sides(units.level, units.pools)) if step.kind == "linear" else prod(step.kernel)
    weight = module.weight.detach().double().cpu().numpy()
    groups = getattr(module, "groups", 1)
    parts = weight.reshape(groups, len(weight) // groups, -1, taps)
    if parts.shape[2] * groups != units.count or (units.flat and step.kind == "conv"):
        raise levels.refuse(f"its {type(module).__name__} takes other inputs than there are")
    whole = np.zeros((groups, parts.shape[1], groups, parts.shape[2], taps))  # channels of other groups: 0
    whole[np.arange(groups), :, np.arange(groups)] = parts
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().cpu().numpy()
    return Sum(units.level, step, ((units, whole.reshape(len(weight), -1, taps)),), bias)
