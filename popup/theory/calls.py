"""What a network calls in a forward pass, in order: modules that are steps, ReLU wherever it is called, and functions besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from popup.source.modes import in_mode, modes_kept

RELUS = ("relu", "relu_")
OWN = {nn.Linear: "linear", nn.Conv2d: "conv2d", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid",
       nn.MaxPool2d: "max_pool2d", nn.AvgPool2d: "avg_pool2d", nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d"}  # what each calls
LAYOUT = {  # functions that look at shapes, or give the same numbers another one
    "flatten", "unflatten", "view", "view_as", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "movedim", "expand",
    "contiguous", "clone", "detach", "size", "dim", "numel", "is_contiguous", "__get__", "__getitem__", "__len__",
    "dropout", "dropout2d", "feature_dropout", "_set_grad_enabled"}
CASTS = {"to", "float", "double"}  # of which those are looked at that may round
GRAPH = {"add", "add_", "__add__", "__radd__", "__iadd__", "batch_norm"}  # what a graph is followed for


class Calls(TorchFunctionMode):
    """Entered around a forward pass of `inputs`. `steps`: the modules of OWN's kinds that were called, and an nn.ReLU for each
    ReLU. Functions of what depends on no input, as a weight that is computed, are left out."""

    def __init__(self, net: nn.Module, inputs: torch.Tensor) -> None:
        super().__init__()
        self.steps: list[nn.Module] = []
        self._functions: Counter[str] = Counter()
        self._of_inputs = {id(inputs): inputs}  # held, or another tensor might get an id
        self._hooks = [module.register_forward_pre_hook(lambda module, inputs: self.steps.append(module))
                       for module in net.modules() if isinstance(module, tuple(OWN))]

    def __torch_function__(self, function: Callable[..., Any], types: Collection[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if any(id(tensor) in self._of_inputs for tensor in _tensors([*args, *(kwargs or {}).values()])):
            name = getattr(function, "__name__", str(function))
            if name in RELUS:
                self.steps.append(nn.ReLU())
            self._functions[name] += not (name in CASTS and _keeps(args[0], found))
            self._of_inputs.update((id(tensor), tensor) for tensor in _tensors([found]))
        return found

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def others(self) -> list[str]:
        """The functions that no step has called, ReLU aside: what they make of a value may depend on it anywhere."""
        own = Counter(name for module in self.steps for kind, name in OWN.items() if isinstance(module, kind))
        left = self._functions - own
        return sorted(name for name in left if name not in LAYOUT and name not in RELUS)


def _keeps(given: Any, found: Any) -> bool:
    """Whether a cast has all numbers that it was given."""
    tensors = isinstance(given, torch.Tensor) and isinstance(found, torch.Tensor)
    return tensors and found.is_floating_point() and found.dtype.itemsize >= given.dtype.itemsize


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among values, and in lists of such."""
    found = []
    for value in values:
        found += _tensors(value) if isinstance(value, (list, tuple)) else [value] if isinstance(value, torch.Tensor) else []
    return found


@torch.no_grad()
def calls_of(net: nn.Module, inputs: torch.Tensor) -> tuple[Calls, str]:
    """What the network calls in evaluation, and what made it fail, if it did."""
    failure = ""
    with modes_kept(net), Calls(in_mode(net, False), inputs) as calls:
        try:
            net(inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            failure = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return calls, failure
