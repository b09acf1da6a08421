"""The passes of one network that are under way: of each thread its own, and those that were begun inside others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import get_ident
from types import FrameType

import torch
from torch import nn

from popup.search.gate import Gate


@dataclass(eq=False)
class Pass:
    """One call of the network. `gates`: what it uses of each unit; `learning`: whether it is one to train by; `call`: torch's
    call of the network, without which it is over; `ready`: the effective weights of a pass with gradients, by layer."""

    gates: Sequence[Gate]
    learning: bool
    call: FrameType | None
    ready: dict[int, torch.Tensor] = field(default_factory=dict)


class Passes:
    """Of each thread the passes that it is in, the outermost first. What an interrupt took a thread out of, for which torch calls
    no hook, is over: its call runs no more."""

    def __init__(self) -> None:
        self._of: dict[int, list[Pass]] = {}

    def begin(self, gates: Sequence[Gate], learning: bool) -> Pass:
        """This thread begins a pass."""
        self.now()  # forgets what was interrupted
        for thread in self._of.keys() - sys._current_frames().keys():
            del self._of[thread]  # it has ended
        call = _call()
        begun = [] if call is None else self._of.get(get_ident(), [])  # a call that cannot be told apart is in no other
        self._of[get_ident()] = begun
        begun.append(Pass(gates, learning, call))
        return begun[-1]

    def end(self) -> Pass | None:
        """This thread's call of the network ends; None: it had not come as far as to begin a pass."""
        begun = self._of.get(get_ident(), [])
        if not begun or begun[-1].call is not _call():
            return None
        ended = begun.pop()
        if not begun:
            del self._of[get_ident()]
        return ended

    def now(self) -> Pass | None:
        """The pass that this thread is in. Of a thread that has begun none, and runs a part for one that trains, that one's."""
        if not self._of:
            return None
        begun = self._of.get(get_ident())
        if begun is None:
            return self._of_another()
        while begun and not _runs(begun[-1], sys._getframe(1)):
            begun.pop()
        if begun:
            return begun[-1]
        del self._of[get_ident()]
        return None

    def _of_another(self) -> Pass | None:
        """The only pass to train by that another thread is in: threads of its own may do a part of it. Without gradients there is
        none, as the ticket is used then."""
        if not torch.is_grad_enabled():
            return None
        at = sys._current_frames()
        found = [one for thread, begun in list(self._of.items()) for one in begun[-1:] if _runs(one, at.get(thread))]
        return found[0] if len(found) == 1 and found[0].learning else None


def _call() -> FrameType | None:
    """Torch's call of the innermost module that is being called, whose hooks ask. None where torch.compile has taken it into a
    program."""
    frame: FrameType | None = sys._getframe(2)  # of who asks begin or end
    calls = nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__
    while frame is not None and frame.f_code not in calls:
        frame = frame.f_back
    return frame


def _runs(one: Pass, frame: FrameType | None) -> bool:
    """Whether a pass is under way in the thread that is at `frame`."""
    if one.call is None:
        return frame is not None
    while frame is not None and frame is not one.call:
        frame = frame.f_back
    return frame is not None
