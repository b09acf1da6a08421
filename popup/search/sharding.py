"""Networks of which FSDP leaves each process a part: what of a search can be done with such scores, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.layer_state import LayerState

FULL = "options=StateDictOptions(full_state_dict=True)), all from torch.distributed.checkpoint.state_dict"


def is_sharded(net: nn.Module, method: str, between: bool) -> bool:
    """Whether FSDP2's fully_shard has taken the network; a UsageError for a method that looks at scores `between` steps."""
    if not any(kind.__name__ == "FSDPModule" for kind in type(net).__mro__):
        return False
    if between:
        raise UsageError(f"method {method} looks at whole scores after each step, and FSDP2's fully_shard leaves a "
                         "process a part of them: use DistributedDataParallel, or another method")
    return True


def refuse_unlike(layer: LayerState, own: torch.Tensor, given: torch.Tensor) -> None:
    """A UsageError if the scores `given` by a state_dict are a part of a sharded network's and the layer's `own` whole, or the
    other way round: torch would load all but these."""
    if hasattr(own, "placements") == hasattr(given, "placements"):
        return
    if hasattr(given, "placements"):
        raise UsageError(f"the state_dict has a part of the scores of {layer.spec.name} (a DTensor, of a network that FSDP2 has "
                         f"sharded), which are whole here: make it by get_model_state_dict(net, {FULL}")
    raise UsageError(f"the state_dict has all scores of {layer.spec.name}, which are sharded here (by FSDP2's fully_shard?): "
                     f"load it by set_model_state_dict(net, state, {FULL}")


def refuse_parts(layers: Sequence[LayerState], scores: Sequence[torch.Tensor]) -> None:
    """A UsageError if this process has a part of some layer's scores only, of which it could select the best of a part."""
    for layer, score in zip(layers, scores, strict=True):
        if hasattr(score, "placements") or score.shape[0] < layer.count:  # a DTensor; a part of what FSDP1 flattens
            raise UsageError(f"{layer.spec.name} has its scores sharded (by FSDP2's fully_shard?): shard the attached network as "
                             "a whole and none of its parts, and call its unshard() before anything is asked of it outside of a "
                             "pass; or use DistributedDataParallel")
