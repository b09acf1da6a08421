"""A training pass through torch.compile: the gates and effective weights as ever, the network around them as one graph.

What selects (numpy on the CPU, a running bracket) is no business of a compiler. So the effective weights are made outside, and
what is compiled is the plain network as a function of them and its input. The compiled kernels lie in torch's own cache on disk,
where the next run with the same shapes finds them: a sweep compiles once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call

from popup.errors import UsageError
from popup.search.network import is_attached, search_of
from popup.search.plain import merge
from popup.source.layers import locate


def compiled(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a step of training may call in the place of `net`: the same function and gradients, to float noise.

    Raises UsageError where torch cannot compile here, or not `net` as one graph.
    """
    run = torch.compile(_plain(net) if is_attached(net) else net, fullgraph=True, dynamic=False)
    weights = _weights(net) if is_attached(net) else lambda: ()

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        try:
            with warnings.catch_warnings():  # torch looks at .grad of the effective weights, and warns of it itself
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
                return run(*weights(), inputs)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # their names change with versions
                raise
            reason = next(line for line in str(error).splitlines() if line.strip())
            raise UsageError(f"--compile does not work for {type(net).__name__} here ({reason:.200}): leave it out") from None

    return forward


def _plain(net: nn.Module) -> Callable[..., torch.Tensor]:
    """The network as a function of its layers' weights, in their order, and its input; its buffers are those of `net`."""
    plain, names = merge(net), [layer.spec.name for layer in search_of(net).layers]
    for path, module in plain.named_modules():
        for name in module._buffers:
            module._buffers[name] = net.get_submodule(path)._buffers[name]
    plain.train()

    def run(*arguments: torch.Tensor) -> torch.Tensor:
        return functional_call(plain, dict(zip(names, arguments[:-1], strict=True)), (arguments[-1],))

    return run


def _weights(net: nn.Module) -> Callable[[], list[torch.Tensor]]:
    """What gives the effective weights of a training pass: one selection for all of them."""
    search = search_of(net)
    owners = [locate(net, layer.spec.name) for layer in search.layers]

    def weights() -> list[torch.Tensor]:
        search.begin(net, ())
        try:
            return [getattr(module, attribute) for module, attribute in owners]
        finally:
            search.end(net, (), None)

    return weights
