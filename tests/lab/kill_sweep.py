"""Kill a sweep's parent, or one of two workers, with -9 at random moments until the grid is done; compare it with another.

    python tests/lab/kill_sweep.py KILLS

The parent is killed alone: its workers must notice. Of the two workers one believes itself on another host (where the system lets
it), and all have a clock that jumps by a day every two seconds (where there is a compiler). The folder of images is decoded by
whoever comes first. Prints one JSON line: what was killed, how many results were ever replaced (none may be), and whether the
tables are equal.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "run.py")]
COST = {"seconds", "peak_memory"}  # columns of a table that differ from run to run
HOST = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]


def build(folder):
    """The library of a strange system, None without a compiler."""
    library = folder / "strange_system.so"
    source = Path(__file__).with_name("strange_system.c")
    compiler = shutil.which("cc")
    if not compiler or subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=False).returncode:
        return None
    return library


def strange(library, name):
    """The environment of that system."""
    return {**os.environ, **({"LD_PRELOAD": str(library), name: "1"} if library else {})}


def images(root):
    colours = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = colours.integers(60 * label, 60 * label + 150, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


def rows(out):
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return sorted(tuple(sorted((name, value) for name, value in row.items() if name not in COST))
                      for row in csv.DictReader(file))


def results(out):
    """What tells each result from another of the same name."""
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*/result.json")}


def ended(pid, seconds=60.0):
    """Whether all of a process group end by themselves."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def until_begun(out, running):
    """Wait until something is done there that was not before, or all have ended: what is killed before says nothing."""
    def marks():
        return {(path, path.stat().st_mtime_ns) for path in out.glob("*/metrics.jsonl")}

    before = marks()
    while marks() <= before and any(process.poll() is None for process in running):
        time.sleep(0.05)


def main(kills, seeds):
    chance, killed = random.Random(0), Counter()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        library, out, whole = build(base), base / "out", base / "whole"
        images(base / "pets")
        environment = strange(library, "POPUP_CLOCK")
        other = HOST if subprocess.run([*HOST, "true"], capture_output=True, check=False).returncode == 0 else []
        grid = ["--dataset", f"folder:{base / 'pets'}", "--epochs", "20", "--widths", "16", "--er-p", "0.5", "0.2", "--seeds",
                str(seeds), "--controls", "random", "er_trained", "--batch-size", "8", "--workers", "2"]
        often, quiet = ["--checkpoint-seconds", "0.1", "--data-dir", str(base / "data")], {"stdout": subprocess.DEVNULL}
        subprocess.run([*RUN, *grid, "--data-dir", str(base / "data whole"), "--out", whole], check=True, **quiet)
        before, replaced, stayed, span, rounds = {}, 0, 0, 1.0, 0
        while killed.total() < kills or len(before) < len(rows(whole)):
            rounds += 1
            assert rounds < 4 * kills + 10, "the sweep does not come to its end"
            if len(before) == len(rows(whole)):  # done before it was killed often enough
                shutil.rmtree(out), shutil.rmtree(base / "data")
                before = {}
            parent = not out.exists() or chance.random() < 0.5
            commands = [[*RUN, *grid, *often, "--out", str(out)]] if parent else [
                [*where, *RUN, "worker", str(out), *often] for where in ([], other)]
            running = [subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL, **quiet)
                       for command in commands]
            until_begun(out, running)
            time.sleep(chance.uniform(0.0, span))
            victim = chance.choice(running)
            if killed.total() < kills and victim.poll() is None:
                os.kill(victim.pid, signal.SIGKILL)
                killed["a sweep's parent" if parent else "a worker"] += 1
            for process in running:
                process.wait()
                stayed += not ended(process.pid)
            now = results(out) if out.exists() else {}
            replaced += sum(now.get(cell) != found for cell, found in before.items())
            before = now
        subprocess.run([*RUN, "report", out], check=True, **quiet)
        print(json.dumps({"killed": dict(killed), "cells": len(before), "replaced": replaced, "stayed": stayed,
                          "another host": bool(other), "clock": library is not None, "equal": rows(out) == rows(whole)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
