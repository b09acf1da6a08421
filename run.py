"""popup's command line: python run.py --er-p 0.2 --k 0.5"""

import gc
import io
import os
import signal
import sys
from typing import NoReturn

SIGNALS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


def end(number: int, frame: object = None) -> NoReturn:
    """What a signal does where no command hears it: one line, and the exit code."""
    print(f"popup: {SIGNALS[number]}", file=sys.stderr)
    sys.exit(128 + number)


def open_streams() -> None:
    """A stream that the caller has closed goes nowhere, so that no file takes its number; a terminal that knows no ± shows a
    question mark."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a caller has put there may have no encoding
            stream.reconfigure(errors="replace")


def run() -> int:
    """Import, which takes seconds, and do what the command line says. Signals wait until that is imported: there are libraries
    that take one in their import for an error of theirs, or for none."""
    open_streams()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    gc.disable()  # a tenth of the time of the import goes by looking for rings in what stays, else
    if __package__:  # installed, where `models` may be a module of the user's own
        from .models import MODELS  # type: ignore[import-not-found]  # mypy looks for it where the checkout has none
    else:
        from models import MODELS
    from popup.lab.commands.command import main
    from popup.lab.commands.ending import say

    gc.freeze()  # nor are they looked for there later
    gc.enable()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        code = main(sys.argv[1:], MODELS)
    except KeyboardInterrupt as stopped:  # one more while a command ends
        end(getattr(stopped, "number", signal.SIGINT))
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:  # what is printed last is written only now, to who has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or say(error, goes_on=False)
    for number in SIGNALS:  # what the command had to say is said, and its exit code is known
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # at its end Python looks for rings in all that was imported, which takes half a second and frees nothing
    return code


if __name__ == "__main__":
    sys.exit(run())
