"""What can be done with a plain network and not with an attached one: told by name with the remedy, before it is half done."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack
from torch.fx import _symbolic_trace

from popup.errors import UsageError
from popup.source.parametrized import lists_on

PLAIN = "popup.merge(net) first, which is a plain network"
REMEDY = f"a search is no fixed program: {PLAIN}"
SAVE = "save_pretrained"  # of transformers' networks
PRUNED = "_orig"          # what torch.nn.utils.prune calls the parameter that it masks, behind its own name


WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
INSIDE = ("_orig_mod", "_forward_module", "_fsdp_wrapped_module")  # what torch.compile, Fabric and FSDP1 call what they wrap


def refuse_wrapped(net: nn.Module) -> None:
    """A UsageError for what wraps a network, or has sharded it."""
    if isinstance(net, WRAPPERS) or any(name in net._modules for name in INSIDE):
        raise UsageError(f"{type(net).__name__} wraps a network, whose names and gradients it has taken already: attach the "
                         "network itself, then wrap it")
    sharded = next((name for name, parameter in net.named_parameters() if hasattr(parameter, "placements")), None)
    if sharded is not None:
        raise UsageError(f"{sharded} is sharded already (by FSDP2's fully_shard, or as a DTensor): attach the network first, "
                         "then shard it")


def refuse_inference(net: nn.Module) -> None:
    """A UsageError where what is made now, or a parameter, is an inference tensor, by which nothing learns."""
    if torch.is_inference_mode_enabled():
        raise UsageError("torch.inference_mode() is on, and tensors that are made in it learn nothing: attach and detach outside "
                         "of it")
    for name, parameter in net.named_parameters():
        if not nn.parameter.is_lazy(parameter) and parameter.is_inference():
            raise UsageError(f"{name} was made in torch.inference_mode(), and nothing learns by it: make the network outside")


@torch._disable_dynamo
def refuse_tracing(net: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Forward pre-hook of an attached network: a UsageError if somebody records the pass as a program, or differentiates it as a
    function."""
    _refuse_others(type(net).__name__)


def refuse_part(name: str) -> None:
    """A UsageError if somebody traces, exports or transforms the module that holds the layer of that name, the rest apart."""
    if _fx_traces():
        raise UsageError(f"{name} is attached, and torch.fx traces its module: {REMEDY}")
    _refuse_others(name)


def refuse_script(name: str) -> NoReturn:
    """What torch.jit.script asks for before it reads the source of a module that holds the layer of that name."""
    raise UsageError(f"{name} is attached, and torch.jit.script compiles its module: {REMEDY}")


def refuse_rebuilding(kind: type[nn.Module]) -> None:
    """Have modules of the class `kind`, which attach has made, refuse what torch's quantisation and pruning begin with: a
    qconfig, and a parameter to be masked in the place of an attached one."""
    if "qconfig" in vars(kind):
        return
    usual = kind.register_parameter

    def register(module: nn.Module, attribute: str, parameter: nn.Parameter | None) -> None:
        made = lists_on(module).get(attribute.removesuffix(PRUNED))
        if made is not None and attribute.endswith(PRUNED):
            raise UsageError(f"{_name(made)} is attached, and torch.nn.utils.prune would mask it once more: {PLAIN}, or search "
                             "in a mask of your own by popup.attach(net, mask='given', masks=...)")
        usual(module, attribute, parameter)

    def quantise(module: nn.Module, settings: object) -> None:
        if settings is not None:  # with None torch marks what it leaves as it is
            name = _name(next(iter(lists_on(module).values())))
            raise UsageError(f"{name} is attached, and torch.ao.quantization puts another module in its place: {PLAIN}")

    for attribute, refusing in (("register_parameter", register), ("qconfig", property(fset=quantise))):
        setattr(kind, attribute, refusing)


def _name(made: nn.ModuleList) -> str:
    """The name of the layer that an attached attribute is."""
    layer: Any = made[0]
    return str(layer.spec.name)


def _fx_traces() -> bool:
    """Whether torch.fx traces symbolically. torch 2.6 has one answer for that and for torch.export, which others warn of."""
    asked = getattr(_symbolic_trace, "is_fx_symbolic_tracing", None) or _symbolic_trace.is_fx_tracing
    return bool(asked()) and not torch.compiler.is_compiling()


def _refuse_others(name: str) -> None:
    if getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)():  # torch 2.6 has the second one alone
        raise UsageError(f"{name} is attached, and torch.export (or torch.onnx.export) records its pass: {REMEDY}")
    if torch.jit.is_tracing():
        raise UsageError(f"{name} is attached, and torch.jit.trace (or torch.onnx.export, or fvcore) records its pass: {REMEDY}")
    if peek_interpreter_stack() is not None:
        raise UsageError(f"{name} is attached, and a transform of torch.func (grad, vmap, jvp) is at work: scores get their "
                         "gradient straight through, which is no derivative that these can take; use loss.backward() or "
                         "torch.autograd.grad, or popup.merge(net) for a plain network")


def refuse_saving(net: nn.Module) -> None:
    """Have transformers' own saving refused, which would write scores by names that no plain network has."""
    if callable(getattr(net, SAVE, None)):
        setattr(net, SAVE, _refuse_saving)


def take_saving_back(net: nn.Module) -> None:
    """Let the network save itself again."""
    vars(net).pop(SAVE, None)


def _refuse_saving(*_: object, **__: object) -> NoReturn:
    raise UsageError("the network is attached, and save_pretrained would write a checkpoint that no plain network can read: "
                     "popup.extract(net).save_pretrained(DIR) for the ticket, popup.merge(net).save_pretrained(DIR) for the "
                     "plain network, torch.save(net.state_dict(), FILE) for the search; for transformers' Trainer "
                     "callbacks=[transformers_callback()], from popup.callbacks")
