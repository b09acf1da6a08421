"""popup's command line: python run.py --er-p 0.2 --k 0.5"""

import sys


def run() -> int:
    """Import, which takes seconds, and do what the command line says; an interrupt meanwhile is one line too."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no ± shows a question mark
        stream.reconfigure(errors="replace")
    try:
        from models import MODELS
        from popup.lab.commands.command import main

        return main(sys.argv[1:], MODELS)
    except KeyboardInterrupt:
        print("popup: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
