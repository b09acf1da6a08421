"""Repeats tables of these pages from nothing: runs the commands that stand under their headings, as they stand.

    python docs/repeat.py                                        # which there are
    python docs/repeat.py "Locked edges at equal"                # those whose page and heading have these words in them
    python docs/repeat.py "accuracy: Conv-4" --cifar ~/cifar10   # a folder with train/CLASS/ and test/CLASS/

What they write goes to repeated/PAGE/HEADING/, where a second call goes on. popup has to run in the Python that runs this.
A table that has no command under its heading is not listed, and of one heading only what its commands measure is repeated.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGES = ("accuracy", "existence", "methods", "speed")
HERE, RUN = Path(__file__).parent, Path(__file__).parents[1] / "run.py"
CIFAR = "folder:CIFAR"  # in a command: the user's own folder
BASH = """set -euo pipefail
python() { shift; echo "+ python run.py $*"; %s "$@" || past $?; }
past() { [ $1 = 1 ] || return $1; }  # a run that failed, or a promise that was missed, is a result too
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
        return BASH % call + self.commands.replace(CIFAR, cifar)


def tables() -> Iterator[Table]:
    """All of them, page by page."""
    for page in PAGES:
        for part in re.split(r"^##+ ", (HERE / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            commands = "".join(line[4:] for line in body.splitlines(keepends=True) if line.startswith("    "))
            if "python run.py" in commands:
                yield Table(page, heading, commands)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", nargs="?", help="words of the table's page and heading")
    options.add_argument("--cifar", metavar="FOLDER", help="CIFAR-10 as images, where commands name it")
    options.add_argument("--out", default="repeated", help="where results go (default: repeated)")
    given = options.parse_args()
    found = [table for table in tables() if given.name is None or given.name in table.name]
    if given.name is None:
        print(*(table.name for table in found), sep="\n")
        return 0
    if not found:
        options.error(f"no table has {given.name!r} in its page and heading: without a name all are listed")
    if given.cifar is None and any(CIFAR in table.commands for table in found):
        options.error("these commands want CIFAR-10: add --cifar FOLDER")
    call = shlex.join([sys.executable, str(RUN)])
    cifar = f"folder:{shlex.quote(str(Path(given.cifar).expanduser().resolve()))}" if given.cifar else CIFAR
    for table in found:
        where = Path(given.out) / table.folder
        where.mkdir(parents=True, exist_ok=True)
        print(f"{table.name}, into {where}/", flush=True)
        code = subprocess.run(["bash", "-c", table.script(call, cifar)], cwd=where, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
