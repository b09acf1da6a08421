"""Callbacks for trainers of others: what `popup.fit` does between the steps of a search, done there.

Each function imports its library, which popup does not need otherwise, and returns a callback for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from popup.errors import UsageError
from popup.files import write_atomically
from popup.search import advance
from popup.search.network import is_attached, search_of

SAVE = "save_pretrained"  # by which transformers' Trainer has a network write itself
UNDO = "_popup_undo"      # what leaves a network as it was before its training


def transformers_callback() -> Any:
    """A callback for transformers' Trainer: `Trainer(net, ..., callbacks=[popup.callbacks.transformers_callback()])`.

    After each step it calls `popup.advance`; it adds `popup.penalty` to the loss that the network gives; and it has
    checkpoints written by the names that the search has. (By itself transformers renames some, and popup refuses such a file.)
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise UsageError("this callback needs transformers: pip install transformers") from None

    class SearchCallback(TrainerCallback):
        """Advances the search, adds its penalty, saves it as it is."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **held: Any) -> None:
            """Begin to look after the network."""
            model: nn.Module = held["model"]
            _leave(model)  # after a training that ended by an error, by whatever callback
            net = attached_in(model)
            hook = model.register_forward_hook(partial(_add_penalty, net, share_by_tokens(args)), with_kwargs=True)
            before = vars(model).get(SAVE)
            if hasattr(model, SAVE):
                vars(model)[SAVE] = partial(_save_search, model)
            vars(model)[UNDO] = partial(_undo, model, hook, before)

        def on_step_end(self, args: Any, state: Any, control: Any, **held: Any) -> None:
            """A step of the optimiser is done."""
            advance(attached_in(held["model"]), min(1.0, state.global_step / state.max_steps))

        def on_train_end(self, args: Any, state: Any, control: Any, **held: Any) -> None:
            """Leave the network as it was."""
            _leave(held["model"])

    return SearchCallback()


def lightning_callback() -> Any:
    """A callback for Lightning: `Trainer(..., callbacks=[popup.callbacks.lightning_callback()])`.

    After each step it calls `popup.advance`, and before each backward pass it adds the gradients of `popup.penalty` to the
    scores'. What is attached may be the LightningModule or a network in it.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        raise UsageError("this callback needs lightning: pip install lightning") from None

    class SearchCallback(Callback):
        """Advances the search, adds its penalty."""

        done = 0

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            """Count steps from here on."""
            attached_in(pl_module)
            self.done = trainer.global_step
            if not isfinite(trainer.estimated_stepping_batches):
                raise UsageError("the trainer has no end, and popup.advance is told how much of the search is behind it: give "
                                 "Trainer max_epochs or max_steps")

        def on_before_backward(self, trainer: Any, pl_module: nn.Module, loss: torch.Tensor) -> None:
            """Add the penalty's gradients, as large as if it had been a part of the loss."""
            penalty = search_of(attached_in(pl_module)).penalty()
            if penalty is None:
                return
            if trainer.world_size > 1:
                raise UsageError("the method has a penalty, whose gradients several processes would not share: add "
                                 "popup.penalty(net) to the loss in training_step, and advance by yourself")
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            (penalty * (scaler.get_scale() if scaler else 1.0) / trainer.accumulate_grad_batches).backward()

        def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
            """Advance if the batch was the last of a step."""
            if trainer.global_step > self.done:
                self.done = trainer.global_step
                advance(attached_in(pl_module), min(1.0, self.done / trainer.estimated_stepping_batches))

    return SearchCallback()


def attached_in(module: nn.Module) -> nn.Module:
    """The attached network that `module` is, or has in it."""
    found = [part for part in module.modules() if is_attached(part)]
    if len(found) != 1:
        raise UsageError(f"{type(module).__name__} has {len(found)} attached networks in it: the callback is for one; call "
                         "popup.attach before the training")
    return found[0]


def share_by_tokens(args: Any) -> float:
    """The share of a batch in the loss of a step where the Trainer counts tokens: it does not divide the loss by the batches of a
    step then, and multiplies it by the number of processes where it counts the tokens of all (transformers 5.24.0)."""
    processes = args.world_size if getattr(args, "average_tokens_across_devices", False) else 1
    return 1.0 / (args.gradient_accumulation_steps * processes)


def _add_penalty(net: nn.Module, share: float, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any],
                 output: Any) -> Any:
    """Forward hook: the output with the penalty in its loss; its `share` where the network gets `num_items_in_batch`."""
    penalty = search_of(net).penalty() if model.training else None
    if penalty is None:
        return output
    if getattr(output, "loss", None) is None:
        raise UsageError(f"the method has a penalty, and {type(model).__name__} gives no loss to add it to: let the network "
                         "compute its loss (no label_smoothing_factor, no compute_loss_func)")
    output.loss = output.loss + (1.0 if kwargs.get("num_items_in_batch") is None else share) * penalty
    return output


def _save_search(model: nn.Module, directory: str | Path, **_: Any) -> None:
    """What takes the place of save_pretrained while the search is trained: all of the state_dict by its own names."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / "model.safetensors", safetensors.torch.save(tensors, {"format": "pt"}))
    config: Any = model.config
    config.save_pretrained(folder)


def _leave(model: nn.Module) -> None:
    """Undo what a callback has done to the network, if one has."""
    undo: Callable[[], None] | None = vars(model).pop(UNDO, None)
    if undo is not None:
        undo()


def _undo(model: nn.Module, hook: Any, before: Any) -> None:
    hook.remove()
    with contextlib.suppress(KeyError):
        del vars(model)[SAVE]
    if before is not None:
        vars(model)[SAVE] = before
