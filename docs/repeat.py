"""Repeats tables of these pages from nothing: runs the commands that stand under their headings, as they stand.

    python docs/repeat.py                                        # which there are
    python docs/repeat.py "Locked edges at equal"                # those whose page and heading have these words in them
    python docs/repeat.py "accuracy: Conv-4" --cifar ~/cifar10   # a folder with train/CLASS/ and test/CLASS/

What they write goes to repeated/PAGE/HEADING/, where a second call goes on. popup has to run in the Python that runs this.
A table that has no command under its heading is not listed, and of one heading only what its commands measure is repeated.
Exit codes: 0 done, 1 a command ended with 1 (a run failed, or a promise was missed, as some tables show; the others were done),
2 wrong input, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGES = ("accuracy", "existence", "methods", "speed")
HERE, RUN = Path(__file__).parent, Path(__file__).parents[1] / "run.py"
CIFAR = "folder:CIFAR"  # in a command: the user's own folder
SIGNALS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
BASH = """set -euo pipefail
trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP  # once the command that runs has ended
missed=0
python() { shift; echo "+ python run.py $*"; %s "$@" || past $?; }
past() { [ $1 = 1 ] || return $1; missed=$((missed + 1)); }  # a run that failed, or a promise that was missed, is a result too
"""
END = """
[ $missed = 0 ] || { echo "ended with 1, as a run failed or a promise was missed: $missed of these commands"; exit 1; }
"""


@dataclass(frozen=True)
class Table:
    """The commands under one heading of a page."""

    page: str
    heading: str
    commands: str

    @property
    def name(self) -> str:
        return f"{self.page}: {self.heading}"

    @property
    def folder(self) -> str:
        """Of what they write."""
        return f"{self.page}/{re.sub(r'[^a-z0-9]+', '-', self.heading.lower()).strip('-')}"

    def script(self, call: str, cifar: str = CIFAR) -> str:
        """The commands for bash, `call` being what `python run.py` is."""
        return BASH % call + self.commands.replace(CIFAR, cifar) + END

    def has(self, words: str) -> bool:
        """Whether page and heading have these words in them, whatever their case; a shell has its own use for `."""
        return _plain(words) in _plain(self.name)


def _plain(words: str) -> str:
    return " ".join(words.replace("`", "").lower().split())


def tables() -> Iterator[Table]:
    """All of them, page by page."""
    for page in PAGES:
        for part in re.split(r"^##+ ", (HERE / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            commands = "".join(line[4:] for line in body.splitlines(keepends=True) if line.startswith("    "))
            if "python run.py" in commands:
                yield Table(page, heading, commands)


def run(script: str, where: Path) -> int:
    """The exit code of a script for bash in the folder `where`. What asks this process to end is handed on to all that the script
    has started, which a signal to one process would not reach, and waited for."""
    started: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def hand_on(number: int, frame: object = None) -> None:
        asked.append(number)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's
    before = {number: signal.signal(number, hand_on) for number in taken}
    try:
        started.append(subprocess.Popen(["bash", "-c", script], cwd=where, stdin=subprocess.DEVNULL, process_group=0))
        for number in tuple(asked):  # before there was anything to hand it to
            hand_on(number)
        code = started[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + asked[0] if asked else code if code >= 0 else 128 - code


def repeat(found: Sequence[Table], out: Path, cifar: str) -> int:
    """Run the tables' commands one after another; returns the exit code."""
    call, failed = shlex.join([sys.executable, str(RUN)]), False
    for table in found:
        where = out / table.folder
        print(f"{table.name}, into {where}/", flush=True)
        code = run(table.script(call, cifar), where)
        failed |= code == 1
        if code > 1:
            how = SIGNALS.get(code - 128, f"a command ended with {code}")
            print(f"repeat: {table.name}: {how}; the same call goes on from here", file=sys.stderr)
            return code
    return int(failed)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", nargs="?", help="words of the table's page and heading")
    options.add_argument("--cifar", metavar="FOLDER", help="CIFAR-10 as images, where commands name it")
    options.add_argument("--out", default="repeated", help="where results go (default: repeated)")
    given = options.parse_args()
    found = [table for table in tables() if given.name is None or table.has(given.name)]
    if given.name is None:
        print(*(table.name for table in found), sep="\n")
        return 0
    if not found or not given.name.strip():
        options.error(f"no table has {given.name!r} in its page and heading: without a name all are listed")
    if given.cifar is None and any(CIFAR in table.commands for table in found):
        options.error("these commands want CIFAR-10: add --cifar FOLDER")
    cifar = CIFAR if given.cifar is None else f"folder:{_images(options, given.cifar)}"
    if shutil.which("bash") is None:
        options.error("there is no bash here, in which these commands are written: install it")
    out = Path(given.out)
    try:
        for table in found:
            (out / table.folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        options.error(f"cannot write to {error.filename} ({error.strerror}): name another --out")
    try:
        return repeat(found, out, cifar)
    except KeyboardInterrupt:  # between two tables
        return 130


def _images(options: argparse.ArgumentParser, name: str) -> Path:
    """The folder of images, as commands have it: within quotes and without."""
    folder = Path(name).expanduser().resolve()
    if lost := [sides[0] for sides in (("train",), ("test", "val")) if not any((folder / side).is_dir() for side in sides)]:
        options.error(f"--cifar is {name!r}, and there is no folder {str(folder / lost[0])!r}: name one with train/CLASS/ and "
                      "test/CLASS/ (or val/CLASS/)")
    if shlex.quote(str(folder)) != str(folder):
        options.error(f"--cifar is {str(folder)!r}, which a shell would take apart: give the folder a name of letters, digits "
                      "and _-./ alone")
    return folder


if __name__ == "__main__":
    sys.exit(main())
