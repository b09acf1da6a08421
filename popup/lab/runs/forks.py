"""Where the worker processes of a sweep come from: a process that imports once what every run needs, and forks.

Each worker on its own would take longer to import torch than to do a small run. The process does nothing but import, so
that no thread, no device and no random state is there to be forked.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker

CONTEXT = multiprocessing.get_context("forkserver")
NEEDED = (  # popup's own by one name; the others are what these import only when they are used, or where popup is not found
    "popup.lab.runs.sweep", "torch", "torch._dynamo", "scipy.special")


def begin() -> None:
    """Start the process, if it does not run yet: it imports while this one goes on. Of an interrupt, which a terminal sends
    to all, it does not hear: this process decides."""
    forkserver.set_forkserver_preload(list(NEEDED))
    resource_tracker.ensure_running()  # which unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
