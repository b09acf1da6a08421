"""Plan a grid into a directory, let workers do it, kill some in the middle of a cell, and count who finished what.

    python tests/lab/workers.py WORKERS KILLED DIRECTORY GRID...

Prints one JSON line: workers, killed (with the cells they were doing), cells, the cells that were finished more than once or
never, and how many were begun again. The tests run it with a few workers; by hand it takes any number.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "run.py")]


def events(log: Path, kind: str) -> list[str]:
    """The cells of a worker's lines of one kind."""
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [words[2] for words in lines if len(words) > 2 and words[1] == kind]


def doing(log: Path) -> list[str]:
    """The cell that a worker has begun and not ended."""
    ended = events(log, "finished") + events(log, "failed")
    return [cell for cell in events(log, "started") if cell not in ended]


def main(workers: int, kills: int, out: Path, grid: list[str]) -> None:
    subprocess.run([*RUN, *grid, "--plan-only", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    cells = [path.parent.name for path in out.glob("*/config.json")]
    logs = [out / f"worker{place}.log" for place in range(workers)]
    command = [*RUN, "worker", str(out), "--checkpoint-seconds", "0.2"]
    processes = [subprocess.Popen(command, stdout=log.open("w")) for log in logs]
    killed = []
    while len(killed) < kills and any(process.poll() is None for process in processes):
        place = len(killed)
        if doing(logs[place]):
            time.sleep(0.2)  # into the cell, which takes a second
            processes[place].kill()
            processes[place].wait()
            killed.append(doing(logs[place]))
        time.sleep(0.02)
    codes = [process.wait() for process in processes]
    finished = [cell for log in logs for cell in events(log, "finished")]
    started = [cell for log in logs for cell in events(log, "started")]
    print(json.dumps({
        "workers": workers, "killed": killed, "codes": codes, "cells": len(cells),
        "not once": [cell for cell in cells if finished.count(cell) != 1], "begun again": len(started) - len(finished),
        "by worker": [len(events(log, "finished")) for log in logs]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
