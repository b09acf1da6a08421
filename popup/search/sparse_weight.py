"""The weight of a layer that computes on its edges alone: no dense tensor, but what the layer's own product is told by."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from popup.errors import UsageError
from popup.search.compute import LayerProducts
from popup.search.weighing import STRAIGHT, Once, SelectEdges, Use


class SparseWeight(torch.Tensor):
    """A tensor of a weight's shape without memory. In its layer's own product it is the products of the edges; to all else it is
    the dense weight, which is then made. `scores` [edges] learn by it."""

    use: Use
    products: LayerProducts
    scores: torch.Tensor
    form: tuple[int, ...]
    number: torch.dtype
    place: torch.device

    @staticmethod
    def __new__(cls, use: Use, products: LayerProducts, scores: torch.Tensor) -> SparseWeight:
        layer = use.of.layers[0]
        return torch.Tensor._make_wrapper_subclass(cls, layer.spec.shape, dtype=layer.dtype, device=layer.values.device,
                                                   requires_grad=scores.requires_grad and torch.is_grad_enabled())

    def __init__(self, use: Use, products: LayerProducts, scores: torch.Tensor) -> None:
        self.use, self.products, self.scores = use, products, scores
        layer = use.of.layers[0]  # what follows is what the tensor itself says, and asked for in a tenth of the time
        self.form, self.number, self.place = layer.spec.shape, layer.dtype, layer.values.device
        self._kept: object = None
        self._dense: torch.Tensor | None = None

    def kept(self) -> object:
        """The effective weights of the edges as the products want them, made once."""
        if self._kept is None:
            layer, gate = self.use.of.layers[0], self.use.gate
            values, selected = layer.book.selected(layer, gate.codes)
            self._kept = self.products.keep((values if gate.plain else values * gate.factor).to(layer.dtype), selected)
        return self._kept

    def dense(self) -> torch.Tensor:
        """The dense weight [the layer's shape], made once, with the same gradient."""
        if self._dense is None:
            layer, learns = self.use.of.layers[0], self.requires_grad
            with torch.inference_mode(torch.is_inference_mode_enabled() and not learns), torch.set_grad_enabled(learns):
                weight = layer.anew(self.use.gate, layer.dtype)  # not as of who asks first, who may be without gradients
                found: torch.Tensor = SelectEdges.apply(self.use, [layer.places()], [weight], self.scores)[0]
                self._dense = found
        return self._dense

    def check(self) -> None:
        """A UsageError if the dense weight was made, and somebody has written to it."""
        layer = self.use.of.layers[0]
        if self._dense is not None and not layer.values.is_meta:
            right = layer.anew(self.use.gate, layer.dtype)
            if not bool(((self._dense.detach() == right) | right.isnan()).all()):
                layer.refuse_written()

    @classmethod
    @torch._disable_dynamo  # torch.compile would trace what is done here, instead of what is computed
    def __torch_function__(cls, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in READ:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        x, weight = args[:2] if len(args) > 1 else (None, None)
        if isinstance(weight, SparseWeight) and weight.products.takes(func, args, kwargs) and _alike(x, weight):
            return _product(x, weight, args[2] if len(args) > 2 else kwargs.get("bias"))
        return func(*_dense(args), **_dense(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch gives it the type of a function that is not to be overridden
            cls, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        for weight in tree_leaves((args, kwargs)):  # below autograd, where somebody's inputs went by __torch_function__
            if isinstance(weight, SparseWeight) and weight.requires_grad and torch.is_grad_enabled():
                raise UsageError(f"{weight.use.of.layers[0].spec.name} computes on its edges alone, and inputs of a class with "
                                 "operations of its own (a nested tensor?) go by that, so that its scores would get no gradient: "
                                 "attach the network with compute='dense'")
        return func(*_dense(args), **_dense(kwargs or {}))


def _dense(found: Any) -> Any:
    """What a call is given, with dense weights in the places of those that are none."""
    return tree_map(lambda part: part.dense() if isinstance(part, SparseWeight) else part, found)


READ = {getattr(torch.Tensor, name).__get__ for name in (
    "shape", "dtype", "device", "requires_grad", "ndim", "layout", "is_cuda", "is_meta", "is_sparse")} | {
    torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.is_floating_point, torch.Tensor.is_complex,
    torch.Tensor.__len__, torch.Tensor.__hash__}  # what tells of a tensor and needs no numbers of it


ON_EDGES = ("computes on its edges alone, which can be differentiated only once (a gradient penalty?): attach the network with "
            "compute='dense'")  # the products are no operations of torch's
AUTOCAST = (torch.float32, torch.bfloat16, torch.float16)  # what autocast makes its own type of


def _alike(x: object, weight: SparseWeight) -> bool:
    """Whether the product can be done as it is: else the dense one says what is wrong."""
    if not isinstance(x, torch.Tensor) or isinstance(x, SparseWeight) or x.device != weight.place or (
            x.layout is not torch.strided or x.is_nested):
        return False
    fits = x.dim() > 0 and x.shape[-1 if len(weight.form) == 2 else 1] == weight.form[1]
    cast = torch.is_autocast_enabled(x.device.type) and weight.number is torch.float32 and x.dtype in AUTOCAST
    return fits and (x.dtype is weight.number or cast)


def _product(x: Any, weight: SparseWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """The layer's output. It is computed in the weight's own type; under autocast it is of that which autocast wants."""
    cast = torch.is_autocast_enabled(x.device.type) and weight.number is torch.float32
    with _as_it_is(x.device.type):
        y = SparseProduct.apply(x.to(weight.number), weight.scores, weight)
        if bias is not None and (bias.requires_grad or bool(bias.any())):  # frozen ones are 0 unless asked for
            bias = bias.to(y.dtype)
            y = y + (bias if len(weight.form) == 2 else bias[:, None, None])
    return y.to(torch.get_autocast_dtype(x.device.type)) if cast else y


def _as_it_is(device: str) -> contextlib.AbstractContextManager[Any]:
    """Without autocast; where there is none, without the 15 us that it takes to switch it off."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


class SparseProduct(torch.autograd.Function):
    """Forward: the product of the edges. Backward: ds = (dL/dW_eff * W) * slope(s), the first of the edges alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scores: torch.Tensor, weight: SparseWeight) -> torch.Tensor:
        products, kept, held = weight.products, weight.kept(), weight.products.hold(x)
        ctx.save_for_backward(scores, held, *weight.use.gate.tensors())
        ctx.use, ctx.products, ctx.kept, ctx.shape, ctx.whole = weight.use, products, kept, x.shape, x.is_contiguous()
        return products.forward(held, kept, x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        scores, held, *_ = ctx.saved_tensors  # which sees that nobody has written to the scores, or to what the gate holds
        use = ctx.use
        if ctx.needs_input_grad[1]:
            use.check_training()
        with torch.no_grad(), _as_it_is(gradient.device.type):
            of_inputs, of_edges = ctx.products.backward(gradient, held, ctx.kept, ctx.shape, ctx.needs_input_grad[0])
            if of_inputs is not None and ctx.whole:
                of_inputs = of_inputs.contiguous()  # as torch's own, which hooks may take for granted
            found = use.method.score_gradient(use.of.unit, scores, use.gate, of_edges.to(
                torch.float32)) if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():  # somebody means to differentiate once more
            name = use.of.layers[0].spec.name
            of_inputs, found = (None if part is None else Once.apply(f"{name} {words}", part, gradient, scores)
                                for words, part in ((ON_EDGES, of_inputs), (STRAIGHT, found)))
        return of_inputs, found, None
