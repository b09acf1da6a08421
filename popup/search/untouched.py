"""What attach froze that is no layer (biases, affines, gains, tokens, tables), and whether somebody has changed it since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from popup.errors import UsageError

REMEDY = ("nothing but scores may change, so set up a network before it is attached (biases become 0, gains 1) and give "
          "optimisers popup.scores(net) alone")


class Untouched:
    """The frozen parameters of an attached network by name: the value that attach set each to, or the SHA-256 of its own, so
    that nothing of their size is kept."""

    def __init__(self, net: nn.Module, scores: Iterable[nn.Parameter], values: Mapping[str, float]) -> None:
        self._marks: dict[str, float | str] = {name: values[name] if name in values else _hash(parameter)
                                               for name, parameter in _frozen(net, scores).items()}

    def check(self, net: nn.Module, scores: Iterable[nn.Parameter]) -> None:
        """A UsageError for a parameter that is another than it was, that has come, or gone."""
        now = _frozen(net, scores)
        for name in [*self._marks, *(name for name in now if name not in self._marks)]:
            if name not in now or name not in self._marks:
                raise UsageError(f"{name} {'was not' if name in now else 'is no longer'} a parameter of the network that was "
                                 f"attached: {REMEDY}")
            mark, parameter = self._marks[name], now[name]
            if isinstance(mark, str) and mark != _hash(parameter):
                raise UsageError(f"{name} has changed since the network was attached: {REMEDY}")
            if isinstance(mark, float) and not bool((parameter == mark).all()):
                raise UsageError(f"{name} is not {mark:g} any more, as attach left it: {REMEDY}")

    def renew(self, net: nn.Module, scores: Iterable[nn.Parameter]) -> None:
        """Take the parameters that have no set value as they are: a search has been loaded, of another network's."""
        now = _frozen(net, scores)
        self._marks |= {name: _hash(now[name]) for name, mark in self._marks.items() if isinstance(mark, str) and name in now}


def _frozen(net: nn.Module, scores: Iterable[nn.Parameter]) -> dict[str, nn.Parameter]:
    """All parameters but the scores, each by all its names."""
    learned = {id(score) for score in scores}
    return {name: parameter for name, parameter in net.named_parameters(remove_duplicate=False) if id(parameter) not in learned}


def _hash(parameter: torch.Tensor) -> str:
    """SHA-256, as hex, of a parameter's kind, shape and bytes; empty on "meta", where it has none."""
    if parameter.is_meta:
        return ""
    digest = hashlib.sha256(f"{parameter.dtype} {tuple(parameter.shape)}".encode())
    digest.update(parameter.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
