"""What a network's products really get: a look at every operation of a forward pass, below autocast, modules and fused kernels.

The memory of each layer's weight is known, and so is what ought to stand in it. Copies are followed (casts, concatenations,
padding), with what ought to stand in them; at each operation that joins a weight and what depends on the inputs, the two are
compared entry by entry. torch.compile is left out: what it has compiled shows no operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from popup.search.dispatch import DispatchMode
from popup.search.provenance import SCALINGS, Data, Faith, Origins, Weight, derive, storage_of, tensors_in
from popup.source.layers import locate
from popup.source.parametrized import lists_on

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "addr", "convolution", "_convolution",
            "convolution_overrideable", "linear", "matmul", "einsum", "_trilinear", "_native_multi_head_attention",
            "_transformer_encoder_layer_fwd", "_addmm_activation", "mkldnn_convolution", "_conv_depthwise2d", "_grouped_mm",
            "embedding"}  # a row looked up is the product with a one among zeros
SUMS = {"add", "sub", "rsub", "lerp", "addcmul", "addcdiv"}  # x + W is no product, and fills the zeros of W


@dataclass
class Watched:
    """What was seen: for each layer how often a product got its weight, and what is wrong, in words, if anything."""

    reached: dict[str, int]
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def unreached(self) -> list[str]:
        """The layers that no product got."""
        return [name for name, times in self.reached.items() if not times]

    def blame(self, name: str, fault: str) -> None:
        """Note what is wrong with a layer; the first thing stands."""
        self.faults.setdefault(name, fault)


def watched(net: nn.Module, tensors: Mapping[str, torch.Tensor | None], forward: Callable[[], object],
            inputs: object = ()) -> Watched:
    """Call `forward`, which runs `net`, attached or plain, and see what becomes of the layers named in `tensors`.

    `tensors` maps each parameter name to what ought to reach the products, of its shape; None: what it holds now. `inputs`:
    the tensors, however nested, that the pass is about. No weight is other than before afterwards, whatever forward does.
    On "meta" there are no values, and the chain of operations is the only evidence.
    """
    found = Watched(dict.fromkeys(tensors, 0))
    watch = Watch(found)
    for tensor in tensors_in(inputs):
        watch.origins.put(tensor, Data.LIVE)
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # what is cached was cast before we looked
    try:
        with _layers(net, tensors, watch), watch:
            forward()
    finally:
        torch.set_autocast_cache_enabled(cached)
    return found


class Watch(DispatchMode):
    """Follows what becomes of weights and inputs. An operation in which neither takes part is left alone."""

    def __init__(self, found: Watched) -> None:
        super().__init__()
        self.found, self.origins, self.paused = found, Origins(), False

    def __torch_dispatch__(self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> object:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # where operations come whole
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        known = [(tensor, self.origins.of(tensor)) for tensor in tensors_in((args, kwargs))]
        name = func._schema.name.rpartition("::")[2]
        weights = [(tensor, origin) for tensor, origin in known if isinstance(origin, Weight)]
        if weights and func._schema.is_mutable:
            self._note_writes(func, name, args, kwargs, weights)
        out = func(*args, **kwargs)
        data = [origin for _, origin in known if isinstance(origin, Data)]
        if weights:
            self._weigh(func, name, args, kwargs, weights, Data.LIVE in data, out)
        elif data:
            self._mark(out, Data.LIVE if Data.LIVE in data else Data.DERIVED)
        return out

    def _mark(self, out: object, origin: Data) -> None:
        for tensor in tensors_in(out):
            if not isinstance(self.origins.of(tensor), Weight):
                self.origins.put(tensor, origin)

    def _note_writes(self, func: OpOverload, name: str, args: tuple[Any, ...], kwargs: dict[str, Any],
                     weights: Sequence[object]) -> None:
        """A write to a layer's own memory is a fault; one to a copy makes it something computed, or scaled."""
        given = {**dict(zip((part.name for part in func._schema.arguments), args, strict=False)), **kwargs}
        spots = [given.get(part.name) for part in func._schema.arguments if part.alias_info and part.alias_info.is_write]
        for tensor in tensors_in(spots):
            origin = self.origins.of(tensor)
            if isinstance(origin, Weight) and origin.own:
                for layer in origin.layers:
                    self.found.blame(layer, f"is written to by the forward pass ({name})")
            elif isinstance(origin, Weight):
                scaled = name.rstrip("_") in SCALINGS and len(weights) == 1 and origin.faith is not Faith.COMPUTED
                self.origins.put(tensor, replace(origin, faith=Faith.SCALED) if scaled else
                                 replace(origin, faith=Faith.COMPUTED, shadow=None, maker=origin.maker or name))

    def _weigh(self, func: OpOverload, name: str, args: tuple[Any, ...], kwargs: dict[str, Any],
               weights: Sequence[tuple[torch.Tensor, Weight]], live: bool, out: object) -> None:
        """Judge an operation that weights take part in, and say what its results are."""
        fresh = [tensor for tensor in tensors_in(out) if not isinstance(self.origins.of(tensor), Weight)]
        sums = name.rstrip("_") in SUMS and any(_is_matrix(tensor) for tensor, _ in weights)
        if not fresh:  # a view, or a number
            return
        if name in PRODUCTS or (live and not sums):
            for tensor, origin in weights:
                self._use(name, tensor, origin)
            self._mark(fresh, Data.LIVE if live else Data.DERIVED)
            return
        for tensor in fresh:
            derived = derive(func, name, args, kwargs, self.origins, tensor)
            if derived is not None:
                self.origins.put(tensor, derived)

    def _use(self, name: str, tensor: torch.Tensor, origin: Weight) -> None:
        """A weight meets what depends on the inputs: it has to be what it ought to be."""
        computed = origin.faith is Faith.COMPUTED
        if computed and name not in PRODUCTS and not _is_matrix(tensor):
            return
        right = not computed and origin.shown_by(tensor)
        for layer in origin.layers:
            self.found.reached[layer] += 1
            if computed:
                self.found.blame(layer, f"reaches its product ({name}) as something computed of it (by {origin.maker})")
            elif not right:
                self.found.blame(layer, f"reaches its product ({name}) with other values than it ought to have")


def _is_matrix(tensor: torch.Tensor) -> bool:
    """Whether a weight is no bias, which is there to be added, and no measure of weights, such as their norm."""
    return sum(side > 1 for side in tensor.shape) > 1


@contextmanager
def _layers(net: nn.Module, tensors: Mapping[str, torch.Tensor | None], watch: Watch) -> Iterator[None]:
    """Let the watch know each layer: a parameter now, a parametrized one whenever it is computed. Afterwards see to it that
    no parameter is another than before."""
    handles, plain = list[RemovableHandle](), list[_Kept]()
    for name, expected in tensors.items():
        module, attribute = locate(net, name)
        if parametrize.is_parametrized(module, attribute):
            for made in _lists_of(net, lists_on(module)[attribute]):
                handles += _follow(made, name, expected, watch)
        else:
            plain.append(_Kept(module, attribute, name, expected, watch))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for kept in plain:
            kept.compare(watch.found)


def _lists_of(net: nn.Module, made: parametrize.ParametrizationList) -> list[parametrize.ParametrizationList]:
    """The list of parametrizations `made`, and those of the further modules that use the same tensor."""
    lists = (module for module in net.modules() if isinstance(module, parametrize.ParametrizationList))
    return [other for other in lists if other[0] is made[0]]


def _follow(made: nn.Module, name: str, expected: torch.Tensor | None, watch: Watch) -> list[RemovableHandle]:
    """Hooks on a parametrization: what it does is not watched, and what it gives is the layer's weight: a copy in memory of its
    own, where the weights of several layers may lie in one."""
    def begin(*_: object) -> None:
        watch.paused = True

    def end(module: nn.Module, inputs: tuple[Any, ...], weight: torch.Tensor | None) -> torch.Tensor | None:
        own = None
        if weight is not None:
            own = weight.clone()
            watch.origins.put_layer(name, own.detach(), own.detach() if expected is None else expected)
        watch.paused = False
        return own
    return [made.register_forward_pre_hook(begin), made.register_forward_hook(end, always_call=True)]


class _Kept:
    """A plain layer's parameter as it is before a pass."""

    def __init__(self, module: nn.Module, attribute: str, name: str, expected: torch.Tensor | None, watch: Watch) -> None:
        self.module, self.attribute, self.name = module, attribute, name
        self.parameter = getattr(module, attribute)
        self.tensor = self.parameter.detach()  # its memory, should the parameter be given another
        self.before = self.tensor if self.tensor.is_meta else self.tensor.clone()
        watch.origins.put_layer(name, self.tensor, self.tensor if expected is None else expected)

    def compare(self, found: Watched) -> None:
        """Note whether the pass has written to the parameter or replaced it, and undo it."""
        now = self.module._parameters.get(self.attribute)
        if now is None or now is not self.parameter or storage_of(now) != storage_of(self.tensor):
            found.blame(self.name, "is replaced by the forward pass")
            self.parameter.data = self.tensor
            self.module._parameters[self.attribute] = self.parameter
        if not self.tensor.is_meta and not torch.equal(self.tensor, self.before):
            found.blame(self.name, "is written to by the forward pass")
            self.tensor.copy_(self.before)
