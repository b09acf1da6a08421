"""Have popup's commands read thousands of damaged and forged run directories and caches, under limits of memory and time.

    python tests/lab/mutate_runs.py COUNT [SEED]

Each round copies a directory of small runs, changes ten of them (and the cache of their data) in one way each, and lets
`report`, `worker`, `eval`, `show`, `verify` and a single run loose on it, each in a process of its own. Prints one JSON line:
how many changes of which kind there were. Ends with an error where a command ends in a traceback, hangs, is killed, tells the
terminal something else than text, imports a module that only a file names, touches a file outside, or where an undisturbed run
is changed or reported otherwise.
"""

import contextlib
import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import matplotlib.figure  # noqa: F401 - every child would import it else
import numpy as np
import torch
from PIL import Image

from models import MODELS
from popup.lab.commands.command import main as popup
from popup.lab.config import Config

ROOM = 2 << 30   # bytes that a command may take beyond what this process has
SECONDS = 240    # of a command, which usually takes one
TOGETHER = 10    # changes a round
DEEP = "[" * 1000 + "]" * 1000
WEIRD = [0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), True, None, "", "x", "\ud800",
         "a\x1b[31mb\x07", "$\\frac{$",
         "\n\r", "n" * 100_000, "../../outside", "\x00", [], [1, 2], [[]], {}, {"a": 1}, "stranger:build", "ticket",
         "random", [None], 1e-320, "nan", -1e-9, 101.0, "É" * 50]
TEXTS = ("config.json", "result.json", "failure.json", "metrics.jsonl", ".begun")
FILES = (*TEXTS, "ticket.safetensors", "checkpoint.safetensors", "training.png", ".lock")
LEFT = ("epochs", "batch_size", "accumulate")  # of a config, which would have a run take hours as it says


def nodes(value, place=()):
    """The path of every value within a JSON value."""
    found = [place] if place else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [path for key, part in items for path in nodes(part, (*place, key))]


def set_at(value, path, new):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def change_json(value, chance):
    """One value at a random depth becomes another, or is gone."""
    path = chance.choice([path for path in nodes(value) if path[-1] not in LEFT] or [()])
    if not path:
        return chance.choice(WEIRD)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if isinstance(parent, dict) and chance.random() < 0.15:
        del parent[path[-1]]
    else:
        old, new = parent[path[-1]], chance.choice(WEIRD)
        if type(old) in (int, float) and chance.random() < 0.4:
            new = old * chance.choice([-1, 0, 1000, 0.5])
        set_at(value, path, new)
    return value


def values(run, chance, outside):
    """A value within one of the JSON files; the directory bears the name that the config then has, and so does the result."""
    path = run / chance.choice([name for name in TEXTS if (run / name).is_file()])
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    place = chance.randrange(len(lines))
    record = change_json(json.loads(lines[place]), chance)
    lines[place] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    if path.name == "config.json" and chance.random() < 0.7:
        with contextlib.suppress(Exception):
            rename(run, Config.from_record(record).hash())
    return f"value in {path.name}"


def rename(run, name):
    result = run / "result.json"
    if result.exists():
        record = json.loads(result.read_text())
        result.write_text(json.dumps(record | {"hash": name}))
    run.rename(run.with_name(name))


def contents(run, chance, outside):
    """Other bytes in the place of a file."""
    path = run / chance.choice(FILES)
    old = path.read_bytes() if path.is_file() else b"{}"
    place = chance.randrange(len(old) + 1)
    new = chance.choice([b"", old[:place], old + old, b"\xff\xfe" + old, chance.randbytes(200), DEEP.encode(), b'{"a":' * 3000,
                         b"1" * 400, b'"text"', b"[]", b"null", b"NaN", b"\0" * 64, b"9" * 5000, b'{"reason": "\\ud800"}',
                         b'{"reason": "a\\u001b[2Jb"}', old[:place] + bytes([chance.randrange(256)]) + old[place + 1:]])
    path.unlink(missing_ok=True)
    path.write_bytes(new)
    return f"contents of {path.name}"


def size(run, chance, outside):
    """A file of a gigabyte, which takes no place on the disk."""
    path = run / chance.choice(FILES)
    with open(path, "ab") as file:
        file.truncate(1 << 30)
    return f"size of {path.name}"


def special(run, chance, outside):
    """What is no file in the place of one."""
    path = run / chance.choice((*FILES, "figures"))
    path.unlink(missing_ok=True)
    how = chance.choice(("pipe", "link to a pipe", "device", "victim", "nowhere", "itself", "folder", "socket", "text"))
    target = {"link to a pipe": outside / "pipe", "device": Path("/dev/zero"), "victim": outside / "victim", "itself": path,
              "nowhere": outside / "new", "text": outside / "text.json"}
    if how in target:
        path.symlink_to(target[how])
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        here = os.getcwd()
        os.chdir(run)  # a socket's name may be 100 letters long
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    return f"{how} as {path.name}"


def folders(run, chance, outside):
    """The run's directory is a link, empty, a file, or what it writes beside is."""
    how = chance.choice(("link", "empty", "copy", "named otherwise", "tensorboard"))
    if how == "link":
        shutil.rmtree(outside / run.name, ignore_errors=True)
        shutil.move(run, outside / run.name)
        if chance.random() < 0.5:
            (outside / run.name / "result.json").unlink(missing_ok=True)
        run.symlink_to(outside / run.name)
    elif how == "empty":
        shutil.rmtree(run)
        run.mkdir()
    elif how == "copy":
        shutil.copytree(run, run.with_name(f"{run.name} \x1b[31m copy"))
    elif how == "tensorboard":
        (run / "tensorboard").symlink_to(outside)
    else:
        run.rename(run.with_name(chance.choice(["$\\frac{$", "0" * 12, "x" * 200, "-rf", "a\nb"]) + run.name))
    return f"directory: {how}"


def code(run, chance, outside):
    """The config names a function of somebody's."""
    record = json.loads((run / "config.json").read_text())
    record["task"][chance.choice(["model", "dataset"])] = chance.choice(["stranger:build", "stranger.deep:build", "os:abort"])
    (run / "config.json").write_text(json.dumps(record))
    if chance.random() < 0.9:
        rename(run, Config.from_record(record).hash())
    return "code"


def cache(run, chance, outside):
    """One of the files of the decoded images, which all runs share."""
    decoded = next((run.parent.parent / "data" / "decoded").glob("pets-*"))
    path = decoded / chance.choice([*(f"{part}_{kind}.npy" for part in ("train", "test") for kind in ("images", "labels")),
                                    "fingerprint.txt", "../.lock"])
    how = chance.choice(("flip", "cut", "kind", "pipe", "victim", "device", "gone"))
    if path.name == ".lock":
        how = chance.choice(("victim", "pipe", "device"))
    old = path.read_bytes() if path.is_file() else b""
    if how in ("flip", "cut") and old:
        place = chance.randrange(len(old))
        new = old[:place] + (bytes([old[place] ^ 1]) + old[place + 1:] if how == "flip" else b"")
        path.write_bytes(new)
    elif how == "kind" and path.suffix == ".npy":
        path.unlink(missing_ok=True)
        np.save(path, chance.choice([np.zeros(3, dtype=[("a", "i4")]), np.array(["x"]), np.zeros((2, 2, 2), "c8"), np.zeros(0)]))
    else:
        path.unlink(missing_ok=True)
        if how == "pipe":
            os.mkfifo(path)
        elif how in ("victim", "device"):
            path.symlink_to(outside / "victim" if how == "victim" else "/dev/zero")
    return f"cache: {how} {path.name}"


KINDS = [values] * 6 + [contents] * 3 + [special] * 4 + [size, folders, code, cache]


def make(root):
    """The directory of small runs that all rounds begin with, their data, and what lies outside."""
    colours = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = colours.integers(100 * label, 100 * label + 100, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "pets" / split / name / f"{number}.png")
    assert popup([*grid(root), "--seeds", "8", "--workers", "1", "--out", str(root / "runs")], MODELS) == 0
    (root / "cwd" / "stranger").mkdir(parents=True)
    for name in ("__init__", "deep"):
        (root / "cwd" / "stranger" / f"{name}.py").write_text(
            f"open({str(root / 'imported')!r}, 'w').close()\nbuild = load = lambda *_: None\n")


def grid(root):
    return ["--dataset", f"folder:{root / 'pets'}", "--data-dir", str(root / "data"), "--epochs", "2", "--widths", "6",
            "--batch-size", "4", "--controls", "random", "--threads", "1"]


def snapshot(folder):
    """Names and bytes of all that lies in a folder, but for locks."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
            for path in folder.rglob("*") if path.name != ".lock"}


def differences(first, second):
    """The names in two snapshots of one folder that are not alike."""
    return sorted(name for name in first.keys() | second.keys() if name not in first or name not in second
                  or first[name] != second[name])


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["hash"]: row for row in csv.DictReader(file)}


def command(root, arguments):
    """Run one command in a child under limits; returns its exit code and what it said."""
    log = root / "said"
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            with open(log, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = (open(number, "w", errors="replace", closefd=False) for number in (1, 2))  # noqa: SIM115
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + ROOM,) * 2)
            os.chdir(root / "cwd")
            code = 99
            try:
                code = popup(arguments, MODELS)
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                import traceback
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        os._exit(98)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), log.read_bytes().decode("utf-8", "replace")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, log.read_bytes().decode("utf-8", "replace")


def check(root, arguments, told):
    code, said = command(root, arguments)
    where = f"{arguments}: exit code {code}\n{said[-3000:]}\n{told}"
    assert code in (0, 1, 2), where
    assert "Traceback" not in said and not re.search("[\x00-\x09\x0b-\x1f\x7f\x9b]", said), f"not text: {where}"
    assert not (root / "imported").exists(), f"a module was imported: {where}"


def one_round(base, chance):
    """Change a copy of the base in ten places, and have everything read it; returns the kinds of changes."""
    with tempfile.TemporaryDirectory() as name:
        root, outside = Path(name), Path(name) / "outside"
        for part in ("runs", "cwd", "data"):
            shutil.copytree(base / part, root / part)
        (root / "cwd" / "stranger" / "__init__.py").write_text(f"open({str(root / 'imported')!r}, 'w').close()\n")
        outside.mkdir()
        (outside / "victim").write_text("a victim")
        (outside / "text.json").write_text('{"reason": "another\'s"}')
        os.mkfifo(outside / "pipe")
        runs = sorted(path for path in (root / "runs").iterdir() if (path / "config.json").exists())
        safe = [path for path in runs if json.loads((path / "config.json").read_text())["source"]["seed"] < 2]
        others = [path for path in runs if path not in safe]
        told = []
        for run in chance.sample(others, TOGETHER):
            if chance.random() < 0.35:
                for left in ("result.json", "training.png"):
                    (run / left).unlink(missing_ok=True)
                if chance.random() < 0.5:
                    (run / "failure.json").write_text('{"reason": "of old", "hash": "x"}')
            told.append(chance.choice(KINDS)(run, chance, outside))
        before, around = {path: snapshot(path) for path in safe}, snapshot(outside)
        data = ["--data-dir", str(root / "data")]
        check(root, ["report", str(root / "runs"), *["--diagnostics"] * chance.randrange(2)], told)
        known, now = rows(base / "runs" / "results.csv"), rows(root / "runs" / "results.csv")
        assert all(now[path.name] == known[path.name] for path in safe), f"other rows: {told}"
        check(root, ["worker", str(root / "runs"), *data, "--threads", "1"], told)
        tickets = list((root / "runs").glob("*/ticket.safetensors"))
        for kind in ("show", "verify"):
            check(root, [kind, str(chance.choice(tickets))], told)
        check(root, ["eval", str(chance.choice(tickets)), *data], told)
        arguments = [*grid(base), *data, "--seed", str(chance.randrange(2, 8)), "--controls", "none"]
        check(root, [*arguments, "--out", str(root / "runs")], told)
        assert snapshot(outside) == around, f"outside was touched: {differences(around, snapshot(outside))}: {told}"
        assert all(snapshot(path) == before[path] for path in safe), f"an undisturbed run was changed: {told}"
        return told


def main(count, seed):
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads; torch has one here
    torch.set_num_threads(1)
    chance, kinds = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            make(base)
        while kinds.total() < count:
            kinds.update(word.split(":")[0].partition(" as ")[0].partition(" of ")[0].partition(" in ")[0]
                         for word in one_round(base, chance))
    print(json.dumps({"changes": kinds.total(), **dict(kinds)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0)
