"""A network whose linear layers hold their kept edges alone: which layers these can be, how they are put in, and their file."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import FunctionType

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.held import tensors_held
from popup.search.provenance import storage_of
from popup.source.layers import Layer, locate
from popup.source.undo import all_or_nothing
from popup.ticket.filling import check_network, planned, provide, write_all
from popup.ticket.same import kind_of_number
from popup.ticket.sparse_linear import ARRAYS, SparseLinear

ONE_BY_ONE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Softplus, nn.Identity,
              nn.Dropout)  # they leave the order in memory as it is


def sparse_layers(net: nn.Module) -> dict[str, SparseLinear]:
    """The sparse layers of a network by the name that their weight had."""
    return {f"{path}.weight": module for path, module in net.named_modules() if isinstance(module, SparseLinear)}


def left_dense(net: nn.Module, layers: Sequence[Layer]) -> dict[str, str]:
    """Which of the weights in `layers` stay dense when `net` is made sparse, by name, each with the reason. Of a network that is
    sparse already: which are dense."""
    there = sparse_layers(net)
    weights = [layer.name for layer in layers if layer.weight is None and layer.name not in there]
    reasons = {name: words for name in weights if (words := _own_reason(net, name))}
    reasons |= {layer.name: f"it is the weight of {layer.also[0]} too" for layer in layers if layer.also}
    held = _held_elsewhere(net, [name for name in weights if name not in reasons])
    return {name: reasons.get(name, "something else holds it too") for name in weights if name in reasons or name in held}


def _own_reason(net: nn.Module, name: str) -> str:
    """Why the module of the weight `name` has to stay; empty if nothing speaks against a sparse one."""
    module, attribute = locate(net, name)
    path = name.rpartition(".")[0]
    if type(module) is not nn.Linear or attribute != "weight":
        return f"of {type(module).__name__}, not of nn.Linear itself"
    if not _is_plain(module):
        return "its module holds more than a weight and a bias"
    if not path:
        return "the network is the layer, which cannot be replaced in it"
    if "forward" in vars(module) or any(value for key, value in vars(module).items() if key.endswith("_hooks")):
        return "hooks, or a forward of its own, hang on its module"
    *above, child = path.split(".")
    owners = [type(net.get_submodule(".".join(above[:depth]))) for depth in range(len(above) + 1)]
    return next((f"the forward of {owner.__name__} reads it itself" for owner in owners if _reads_weight(owner, child)), "")


def _is_plain(module: nn.Module) -> bool:
    """Whether all that an nn.Linear holds is a weight and a bias, or None in its place: what else it held would be lost."""
    return module._parameters.keys() == {"weight", "bias"} and not module._buffers and not module._modules


def _reads_weight(owner: type, child: str) -> bool:
    """Whether a forward of the class `owner` has `.CHILD.weight` in its code, as where it calls a fused kernel, so that each pass
    would make the dense weight. What asks in another way gets it (SparseLinear.weight), and is right, but slow."""
    code = [dis.get_instructions(function) for kind in owner.__mro__ for name, function in vars(kind).items()
            if "forward" in name and isinstance(function, FunctionType)]
    return any(first.argval == child and second.argval == "weight" for lines in code for first, second in pairwise(lines))


def _held_elsewhere(net: nn.Module, names: Sequence[str]) -> set[str]:
    """The weights among `names` whose tensor, or whose module, something else in `net` holds: a list, a closure, a view."""
    owners = {id(locate(net, name)[0]) for name in names}
    weights = {storage_of(getattr(*locate(net, name))): name for name in names}
    known = {id(module) for module in net.modules()} - owners  # a layer in a list is entered, and its weight found there
    return {weights[storage_of(tensor)] for module in net.modules() for tensor in _beside_weights(module, owners, known)
            if storage_of(tensor) in weights}


def _beside_weights(module: nn.Module, owners: set[int], known: set[int]) -> Iterator[torch.Tensor]:
    """Each tensor that `module` holds itself, but the weight of a layer."""
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers"):
            yield from (tensor for name, tensor in value.items()
                        if tensor is not None and not (name == "weight" and id(module) in owners))
        elif key != "_modules":
            yield from (tensor for _, tensor in tensors_held(value, known))


def put_in(net: nn.Module, layers: Mapping[str, SparseLinear]) -> nn.Module:
    """Put sparse layers, by their weight's name, in the places of the linear ones, whose biases they take over. Returns `net`."""
    for name, fresh in layers.items():
        path = name.rpartition(".")[0]
        parent, _, child = path.rpartition(".")
        old = net.get_submodule(path)
        vars(fresh).update({key: value for key, value in vars(old).items() if key not in vars(fresh)})  # of whoever marks layers
        fresh.bias = old._parameters["bias"]
        net.get_submodule(parent)._modules[child] = fresh.train(old.training)
    for module in net.modules():
        if type(module) is nn.Sequential:
            _join(list(module))
    return net


def _join(modules: list[nn.Module]) -> None:
    """Sparse layers that hand over to one another, at most activations between, need no order in memory but their own."""
    before = None
    for module in modules:
        if isinstance(module, SparseLinear):
            if before is not None:
                before.by_columns = True
            before = module
        elif type(module) not in ONE_BY_ONE:
            before = None


def load_sparse(net: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Make the plain network `net` the sparse one whose state_dict `state` is, in place, as `export --sparse` writes it. Returns
    `net`, frozen. Raises UsageError, before anything is changed, if the state is not one of `net`."""
    check_network(net)
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(f"{name!r} is of type {type(tensor).__name__}, no tensor: it is another network's state")
    names = [f"{name.removesuffix('.crow')}.weight" for name in state if name.endswith(".crow")]
    layers = {name: _from_state(net, name, state) for name in names}
    arrays = {f"{name.removesuffix('weight')}{part}" for name in names for part in ARRAYS}
    rest = {name: tensor for name, tensor in state.items() if name not in arrays}
    wanted = {name: tensor for name, tensor in net.state_dict().items()
              if name not in layers and isinstance(tensor, torch.Tensor)}
    for name in sorted(wanted.keys() ^ rest.keys()):
        raise UsageError(f"{name!r} is in the {'network' if name in wanted else 'state'} alone: it is another network's state")
    for name, tensor in rest.items():
        if tensor.shape != wanted[name].shape:
            raise UsageError(f"{name!r} has shape {list(tensor.shape)}, and {list(wanted[name].shape)} in the network: it is "
                             "another network's state")
        if kind_of_number(tensor) != kind_of_number(wanted[name]):
            raise UsageError(f"{name!r} is {tensor.dtype}, and {wanted[name].dtype} in the network: it is another network's "
                             "state")
    writes = planned(net, rest, frozenset(layers))
    with all_or_nothing(net):
        provide(net, writes)
        put_in(net, layers).requires_grad_(False)
        write_all(writes)
    return net


def _from_state(net: nn.Module, name: str, state: Mapping[str, torch.Tensor]) -> SparseLinear:
    """The sparse layer in the place of weight `name`; a UsageError unless its arrays are compressed rows of that shape."""
    path = name.removesuffix(".weight")
    try:
        module, (crow, col, values) = net.get_submodule(path), (state[f"{path}.{part}"] for part in ARRAYS)
    except (AttributeError, KeyError) as error:
        raise UsageError(f"{name} cannot be made sparse: {error}") from None
    for part, tensor in zip(ARRAYS, (crow, col, values), strict=True):
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise UsageError(f"{path}.{part} is {'on meta' if tensor.is_meta else tensor.layout}, and no rows can be read of it: "
                             "give it as a dense tensor")
    plain = module if isinstance(module, nn.Linear) and type(module) is nn.Linear and _is_plain(module) else None
    if plain is None or not _are_rows(crow, col, values, (plain.out_features, plain.in_features)):
        shape = [] if plain is None else [plain.out_features, plain.in_features]
        raise UsageError(f"{path}.crow, .col and .values are no compressed rows of a Linear of shape {shape}: it is "
                         "another network's state")
    weight = plain.weight
    device = "cpu" if weight.is_meta else weight.device
    return SparseLinear(crow.to(device), col.to(device), values.to(device, weight.dtype), plain.in_features)


def _are_rows(crow: torch.Tensor, col: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> bool:
    """Whether they are sound: the products read memory by them unchecked."""
    whole = {crow.dtype, col.dtype} <= {torch.int32, torch.int64} and crow.dtype == col.dtype and values.is_floating_point()
    if not whole or crow.shape != (shape[0] + 1,) or col.dim() != 1 or col.shape != values.shape:
        return False
    ends = int(crow[0]) == 0 and int(crow[-1]) == len(col) and bool((crow.diff() >= 0).all())
    return ends and bool(((col >= 0) & (col < shape[1])).all())
