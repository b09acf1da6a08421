"""The passes of one network that are under way: of each thread its own, and those that were begun inside others."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from threading import Thread, current_thread, get_ident
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint

from popup.search.gate import Gate

NO_NUMBER = 1 << 62  # from here on: of nodes that no pass makes, but their first use


@dataclass(eq=False)
class Pass:
    """One call of the network. `gates`: what it uses of each unit; `learning`: whether it is one to train by; `call`: torch's
    call of the network, without which it is over; `thread`: whose it is, and `helped`: whether others do parts of it; `ready`:
    the effective weights of a pass with gradients, by layer, while it is under way; `first` and `end`: the numbers that autograd
    gave to its nodes, each thread counting its own up."""

    gates: Sequence[Gate]
    learning: bool
    call: FrameType | None
    thread: Thread = field(default_factory=current_thread)
    helped: bool = False
    ready: dict[int, torch.Tensor] = field(default_factory=dict)
    first: int = field(default_factory=torch.autograd._get_sequence_nr)
    end: float = inf

    def close(self) -> None:
        """It is over. Its graph holds it, and so it may hold nothing of that: weights, and what the call has for its result."""
        self.ready, self.call, self.end = {}, None, torch.autograd._get_sequence_nr()


class Passes:
    """Of each thread the passes that it is in, the outermost first. What an interrupt took a thread out of, for which torch calls
    no hook, is over: its call runs no more."""

    def __init__(self) -> None:
        self._of: dict[int, list[Pass]] = {}
        self.last: Pass | None = None              # with gradients
        self._known: list[weakref.ref[Pass]] = []  # those with gradients whose graph is there

    def begin(self, gates: Sequence[Gate], learning: bool) -> Pass:
        """This thread begins a pass."""
        self._here()  # forgets what was interrupted
        for thread, passes in list(self._of.items()):
            if passes and not any(map(_runs, list(passes))):
                self._of.pop(thread, None)  # of another thread, which has ended
        call = _call()
        begun = [] if call is None else self._of.get(get_ident(), [])  # a call that cannot be told apart is in no other
        self._of[get_ident()] = begun
        begun.append(Pass(gates, learning, call))
        if torch.is_grad_enabled():
            self.last = begun[-1]
            self._known = [*(one for one in self._known if one() is not None), weakref.ref(self.last)]
        return begun[-1]

    def end(self) -> Pass | None:
        """This thread's call of the network ends; None: it had not come as far as to begin a pass."""
        begun = self._of.get(get_ident(), [])
        if not begun or begun[-1].call is not _call():
            return None
        ended = begun.pop()
        if not begun:
            self._of.pop(get_ident(), None)
        return ended

    def now(self) -> Pass | None:
        """The pass that this thread is in. Of a thread that has begun none, and runs a part for one that trains, that one's."""
        if not self._of:
            return None
        return self._here() if get_ident() in self._of else self._of_another()

    def _here(self) -> Pass | None:
        """The pass that this thread has begun last and is in, once those that were interrupted are forgotten."""
        begun = self._of.get(get_ident(), [])
        while begun and not _runs(begun[-1]):
            begun.pop().close()
        if begun:
            return begun[-1]
        self._of.pop(get_ident(), None)
        return None

    def anew(self) -> Pass | None:
        """The pass of which autograd computes something anew now (torch.utils.checkpoint): that which made the node that is at
        work. Where there is no node, as in a hook, the last one. None: of no pass that is known. Raises LookupError if it may be
        one of several, of threads that count alike."""
        node: Any = torch._C._current_autograd_node()
        if node is None or (number := node._sequence_nr()) >= NO_NUMBER:
            return self.last
        known = [one for one in (known() for known in self._known) if one is not None]
        found = [one for one in known if one.first <= number < one.end]  # those of one thread are one inside the other
        if found and any(one.helped for one in known):
            found = known  # a node of one that helped has a number of its own thread
        if any(one.thread is not found[-1].thread or one.helped for one in found) and not _alike(found):
            raise LookupError("passes of several threads")
        return found[-1] if found else None

    def _of_another(self) -> Pass | None:
        """The only pass to train by that another thread is in: threads of its own may do a part of it. Without gradients there is
        none, as the ticket is used then."""
        if not torch.is_grad_enabled():
            return None
        found = [one for begun in list(self._of.values()) for one in begun[-1:] if _runs(one)]
        if len(found) != 1 or not found[0].learning:
            return None
        found[0].helped = True
        return found[0]


def _call() -> FrameType | None:
    """Torch's call of the innermost module that is being called, whose hooks ask. None where torch.compile has taken it into a
    program."""
    frame: FrameType | None = sys._getframe(2)  # of who asks begin or end
    calls = nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__
    while frame is not None and frame.f_code not in calls:
        frame = frame.f_back
    return frame


def _alike(passes: Sequence[Pass]) -> bool:
    """Whether they use the very same of each unit."""
    return all(all(map(Gate.same_as, passes[0].gates, one.gates)) for one in passes[1:])


def _runs(one: Pass) -> bool:
    """Whether a pass is under way, in whichever thread: Python clears no frame that runs. (The frames of another thread that runs
    cannot be walked, which ends the process now and then.)"""
    if one.call is None:
        return one.thread.is_alive()
    try:
        one.call.clear()
    except RuntimeError:
        return True
    return False


def in_backward() -> bool:
    """Whether autograd is at work, which calls forward functions to compute anew what was not kept."""
    return torch._C._current_graph_task_id() != -1


def in_function() -> bool:
    """Whether it is the backward of a torch.autograd.Function that is at work, and calls the network: its forward did so without
    gradients. (A checkpoint that is not reentrant calls from within what a node asks for.)"""
    if not in_backward() or not isinstance(torch._C._current_autograd_node(), torch.autograd.function.BackwardCFunction):
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (frame.f_code.co_name == "unpack_hook" and frame.f_code.co_filename == checkpoint.__file__):
        frame = frame.f_back
    return frame is None
