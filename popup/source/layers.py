"""What of a network can be masked: its layers, by parameter name, weights and where it is asked for biases; and what else it
holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import parametrize

from popup.errors import UsageError
from popup.source.maskable import Kind, Sides, kind_of
from popup.source.patterns import any_matched, matches

MOST_SIDES = 16  # dimensions of a tensor in a ticket; those of torch's own modules have up to five
MOST_LAYERS = 10_000  # of a network: each is built and looked at, which takes milliseconds; the deepest known have some thousands
LOOKED_UP = 1  # the fan_in of an embedding, which takes a row and sums nothing
BIAS_OF = {"weight": "bias", "in_proj_weight": "in_proj_bias", "q_proj_weight": "in_proj_bias"}  # a module's weight: its bias


@dataclass(frozen=True)
class Layer:
    """One maskable tensor: its parameter name and shape, of a weight [out, in] or [out, in / groups, *kernel] if `sides` does not
    say otherwise, of a bias [out]."""

    name: str
    shape: tuple[int, ...]
    weight: Layer | None = None      # of a bias: the weight whose outputs it is added to
    further: tuple[Layer, ...] = ()  # of a bias that is one for three weights: those of its second and last third
    sides: Sides | None = None       # of a weight whose shape does not say what it connects
    also: tuple[str, ...] = ()       # the further names of a tensor that several modules use

    @property
    def names(self) -> tuple[str, ...]:
        """All the names of its tensor."""
        return self.name, *self.also

    @property
    def entries(self) -> int:
        """m_l, the number of weights (or biases)."""
        return prod(self.shape)

    @property
    def fan_in(self) -> float:
        """The entries that feed one output neuron or channel; a bias has its weight's."""
        if self.weight is not None:
            return self.weight.fan_in
        return prod(self.shape[1:]) if self.sides is None else self.sides.fan_in

    @property
    def connects(self) -> Sides:
        """What it connects, of a weight."""
        return self.sides or Sides(self.shape[0], self.shape[1], self.shape[2:], prod(self.shape[1:]))

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """`values` of its shape [outputs, what feeds one of them]; of a bias [out, 1]."""
        if self.sides is None:
            return values.reshape(len(values), prod(self.shape[1:]))
        inputs, filter_size = self.sides.inputs, prod(self.sides.kernel)
        if self.sides.inputs_first:
            width = self.shape[-1 - len(self.sides.kernel)]
            values = values.reshape(-1, inputs, width, filter_size).transpose(1, 2)
        return values.reshape(-1, inputs * filter_size)

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The weights whose deviations its equal parts have: itself; of a bias those that it is added to the outputs of."""
        return self.weight or self, *self.further

    @property
    def kernel(self) -> tuple[int, ...]:
        """The filter's sides; empty for a linear layer."""
        return self.shape[2:] if self.sides is None else self.sides.kernel


def locate(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds parameter `name`, and the parameter's name inside it."""
    path, _, attribute = name.rpartition(".")
    return net.get_submodule(path), attribute


def users(net: nn.Module, layer: Layer) -> list[tuple[nn.Module, str]]:
    """The modules that use a layer's tensor, each once, with its name there."""
    return list(dict.fromkeys(locate(net, name) for name in layer.names))


def find_layers(net: nn.Module, biases: bool = False, skip: Sequence[str] = (), only: Sequence[str] = ()) -> list[Layer]:
    """The maskable layers of `net` in the order it defines them; with `biases` each weight is followed by its bias, if any.

    Of the names of parameters those that match a pattern of `skip` are none, nor, if there is an `only`, those that match none of
    its patterns. Raises UsageError, with the parameter's name, for a weight that is also used where it is not masked, is not yet
    initialised (lazy), or already parametrized; for a pattern that matches nothing; and for a network that has no weight to mask.
    """
    chosen = _chosen(net, skip, only)
    layers: list[Layer] = []
    seen: dict[int, int] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        kind = kind_of(module)
        if kind is None or (kind.asked and not only):
            continue
        for attribute in _maskable(kind, module, biases):
            name = f"{path}.{attribute}" if path else attribute
            if not chosen(name):
                continue
            tensor, is_bias = _plain_weight(module, attribute, name), attribute not in kind.weights
            found = Layer(name, tuple(tensor.shape), weight_of(name, layers[-1]) if is_bias and layers else None,
                          sides=None if is_bias else kind.read(module, attribute))
            if id(tensor) in seen:
                place = seen[id(tensor)]
                layers[place] = _tied(layers[place], found)
            elif found.weight is not None or not is_bias:  # a bias is one behind its own weight alone
                seen[id(tensor)] = len(layers)
                layers.append(found)
    if not layers:
        raise UsageError(f"{type(net).__name__} has no weight to mask: of Linear, convolutions, attention and what else "
                         "popup.register knows" + (", but for what skip and only leave out" if skip or only else ""))
    _refuse_other_ties(net, {key: layers[place] for key, place in seen.items()})
    _refuse_lazy(net)
    return with_further(layers)


def _chosen(net: nn.Module, skip: Sequence[str], only: Sequence[str]) -> Callable[[str], bool]:
    """Whether a weight is to be masked, by its name, which may be no parameter's (of weight_norm, say). A UsageError for a
    pattern that is of no parameter's name."""
    names = [name for name, _ in net.named_parameters(remove_duplicate=False)] if skip or only else []
    any_matched(skip, names, "parameter (of skip)"), any_matched(only, names, "parameter (of only)")
    return lambda name: not any(matches(pattern, name) for pattern in skip) and (
        not only or any(matches(pattern, name) for pattern in only))


def named_layers(net: nn.Module, wanted: Sequence[Layer]) -> list[Layer]:
    """The layers of `net` that have the names of the `wanted`, with the shapes that they have there; those it lacks are left
    out. What kinds of modules they are of does not matter."""
    found = []
    for layer in wanted:
        try:
            module, attribute = locate(net, layer.name)
        except AttributeError:
            continue
        if getattr(module, attribute, None) is not None:
            found.append(replace(layer, shape=tuple(_plain_weight(module, attribute, layer.name).shape)))
    return found


def _tied(first: Layer, other: Layer) -> Layer:
    """One layer of a tensor that a second module uses, as the product that it has there agrees; a look-up (an embedding) agrees
    to any."""
    if first.weight is not None:
        return replace(first, also=(*first.also, other.name))
    one, two = first.connects, other.connects
    if one != two and LOOKED_UP not in (one.fan_in, two.fan_in):
        raise UsageError(f"{other.name} is the same tensor as {first.name}, and they read it otherwise (in and out, or a "
                         f"filter): give each module its own, or leave both dense with skip=({first.name!r}, {other.name!r})")
    product = other if one.fan_in == LOOKED_UP else first
    return replace(first, sides=product.sides, also=(*first.also, other.name))


def weight_of(name: str, before: Layer | None) -> Layer | None:
    """The layer `before` the one of that name, if it is the weight that this one is the bias of; else None."""
    if before is None:
        return None
    (path, _, attribute), (module, _, weight) = name.rpartition("."), before.name.rpartition(".")
    return before if path == module and BIAS_OF.get(weight) == attribute else None


def with_further(layers: Sequence[Layer]) -> list[Layer]:
    """The `layers`, the bias of attention with separate projections (kdim, vdim) with the weights of keys and values too."""
    found = {layer.name: layer for layer in layers}
    whole = []
    for layer in layers:
        layer = replace(layer, weight=found[layer.weight.name]) if layer.weight else layer  # with all the names that it has
        path = layer.weight.name.removesuffix("q_proj_weight") if layer.weight else ""
        further = [found.get(f"{path}{name}") for name in ("k_proj_weight", "v_proj_weight")]
        parts = [part for part in (layer.weight, *further) if part and 3 * part.shape[0] == layer.entries]
        whole.append(replace(layer, further=tuple(parts[1:])) if len(parts) == 3 else layer)
    return whole


def _maskable(kind: Kind, module: nn.Module, biases: bool) -> list[str]:
    """The names of the weights that `module`, of that `kind`, itself holds; if `biases` each with its bias, a vector."""
    found = []
    for weight in kind.held_by(module):
        bias = getattr(module, BIAS_OF.get(weight, ""), None) if biases else None
        found += [weight] if bias is None or bias.dim() != 1 else [weight, BIAS_OF[weight]]
    return found


def _plain_weight(module: nn.Module, attribute: str, name: str) -> nn.Parameter:
    """The parameter itself, or a UsageError that says why it cannot be masked."""
    if parametrize.is_parametrized(module):
        raise UsageError(f"{name} is in a module that is already parametrized: remove that parametrization first "
                         "(popup.detach takes a search of popup's off, popup.ticket.release what holds a trained ticket's "
                         f"zeros), or leave it out: {skip_of(name)}")
    weight = module._parameters.get(attribute)
    if weight is None:
        raise UsageError(f"{name} is not a parameter of its module (an old weight_norm or pruning hook?): "
                         f"remove what computes it first, or leave it out: {skip_of(name)}")
    if isinstance(weight, UninitializedParameter):
        raise UsageError(f"{name} is lazy and has no shape yet: run the network once before attaching")
    if weight.is_complex() or not weight.is_floating_point():
        raise UsageError(f"{name} has dtype {weight.dtype}: only real floating-point weights can be masked")
    if weight.numel() == 0:
        raise UsageError(f"{name} has shape {list(weight.shape)}: a layer without entries cannot be masked")
    return weight


def _refuse_other_ties(net: nn.Module, layers: dict[int, Layer]) -> None:
    """A tensor that is masked here cannot be used elsewhere as it was (by an embedding, say)."""
    for name, parameter in net.named_parameters(remove_duplicate=False):
        layer = layers.get(id(parameter))
        if layer is not None and name not in layer.names:
            raise UsageError(f"{name} is the same tensor as {layer.name}, which alone would be masked: "
                             f"{_remedy(net, layer, name)}")


def skip_of(name: str) -> str:
    """What leaves the layer of that name out, as attach and the command line have it."""
    path = name.rpartition(".")[0] or name
    return f"skip=({path!r},) of attach, or --skip {path}"


def _remedy(net: nn.Module, layer: Layer, name: str) -> str:
    """What to do where a layer's tensor is also used elsewhere, by `name`."""
    path = layer.name.rpartition(".")[0] or layer.name
    config = getattr(net, "config", None)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    flag = "build it of a config object whose tie_word_embeddings was set to False (T5 takes it in no other way), or " * tied
    asked = f", or mask both with only=(..., {path!r}, {name.rpartition('.')[0] or name!r})" if _is_lookup(net, name) else ""
    return f"{flag}give each module its own, or leave it dense with skip=({path!r},){asked}"


def _is_lookup(net: nn.Module, name: str) -> bool:
    module, attribute = locate(net, name)
    kind = kind_of(module)
    return kind is not None and kind.asked and attribute in kind.weights


def _refuse_lazy(net: nn.Module) -> None:
    """A lazy norm, say: it is not masked but has to be frozen, and has nothing to freeze yet."""
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise UsageError(f"{name} is lazy and has no shape yet: run the network once before attaching")
