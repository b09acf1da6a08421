"""A ticket as files for other programs. Each writer returns a file's bytes; the optional libraries are imported here."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from popup.errors import UsageError
from popup.source.modes import in_mode
from popup.ticket.sealed import Tensors, apart
from popup.ticket.sparse_linear import SparseLinear
from popup.ticket.ticket import Ticket

TIE = 1e-5  # of the largest |logit| of an image: classes as near as that are tied, and float noise decides between them
QUIET = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")  # loggers
Predict = Callable[[torch.Tensor], torch.Tensor]  # inputs [n, ...] -> logits [n, classes], of texts [n, tokens, classes]


def plain_file(ticket: Ticket, compressed_rows: bool = False) -> bytes:
    """The state_dict as safetensors; with `compressed_rows` each matrix NAME as compressed sparse rows."""
    if not compressed_rows:
        return state_file(ticket.state_dict())
    state = ticket.others()
    for layer in ticket.layers:
        name, shape = layer.spec.name, layer.spec.shape
        if len(shape) == 2 and not layer.spec.also:
            state |= _compressed(name, SparseLinear.at(*layer.kept_weights(ticket.recipe, ticket.book), shape))
        else:
            state |= dict.fromkeys(layer.spec.names, layer.weight(ticket.recipe, ticket.book))
    return state_file(state)


def state_file(state: Mapping[str, torch.Tensor]) -> bytes:
    """A state_dict as safetensors."""
    return safetensors.torch.save(apart(state), {"format": "pt"})


def _compressed(name: str, rows: SparseLinear) -> Tensors:
    """A matrix [rows, columns] as NAME.crow_indices [rows + 1], NAME.col_indices [n], NAME.values [n] and NAME.shape [2]:
    the arguments of torch.sparse_csr_tensor."""
    return {f"{name}.crow_indices": rows.crow, f"{name}.col_indices": rows.col, f"{name}.values": rows.values,
            f"{name}.shape": torch.tensor([rows.out_features, rows.in_features], device="cpu")}


def program_file(net: nn.Module, example: torch.Tensor) -> tuple[bytes, Predict]:
    """A torch.export program (.pt2) for any number of inputs like those of `example` [n, ...], and how it predicts once
    read back."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(_exported(net, example), buffer)
        try:
            module = torch.export.load(io.BytesIO(buffer.getvalue())).module()
        except RuntimeError:  # torch 2.6 fails on nested containers
            raise UsageError(f"torch {torch.__version__} cannot read back the program it exports of this network: update torch, "
                             "or export to a .safetensors or .onnx file") from None
    return buffer.getvalue(), module


def onnx_file(net: nn.Module, example: torch.Tensor) -> tuple[bytes, Predict]:
    """An ONNX model for any number of inputs like those of `example` [n, ...], and how onnxruntime predicts with it."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"writing ONNX needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    with _quiet():
        program: Any = torch.onnx.export(_exported(net, example), dynamo=True, verbose=False)
        content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {name: inputs.numpy()})[0]))

    return content, predict


@torch.no_grad()
def differing(net: nn.Module, predict: Predict, inputs: torch.Tensor) -> int:
    """On how many inputs [n, ...] `predict` chooses a class that `net` has below its own, by more than a TIE: another program
    adds in another order, so that logits which are equal but for rounding may change places."""
    logits, chosen = net(inputs.clone()), predict(inputs).argmax(-1, keepdim=True)
    below = logits.max(-1).values - logits.gather(-1, chosen)[..., 0]
    return int((~(below <= TIE * logits.abs().max(-1).values)).reshape(len(inputs), -1).any(1).sum())  # no numbers differ too


def _exported(net: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(in_mode(net.cpu(), False), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporters warn of their own insides and print what they could not trace, and onnxscript logs: none of it is the
    user's to mend, who gets one line."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
