"""A sweep on a real SLURM (tests/lab/slurm.sh start), with jobs requeued and preempted midway, against the same sweep here.

    python tests/lab/slurm_sweep.py DIRECTORY [JOBS]

24 runs go out as a job array. Midway one job is requeued by the operator, one is told that its time is over (submitit's
signal), and, where the partition `high` is, jobs are preempted. Prints one JSON line; `equal` says whether the CSV is that
of the same sweep done here.
"""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "run.py")]
GRID = ["--epochs", "20", "--widths", "64", "--er-p", "0.2", "0.5", "--k", "0.25", "0.5", "--seeds", "3", "--controls", "random"]
NOT_MEASURED = ("seconds", "peak_memory", "threads", "hardware")


def rows(out: Path) -> list[dict[str, str]]:
    subprocess.run([*RUN, "report", str(out)], check=True, stdout=subprocess.DEVNULL)
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in NOT_MEASURED} for row in csv.DictReader(file)]


def tell(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def running() -> list[str]:
    return tell("squeue", "-h", "-t", "R", "-p", "low", "-o", "%i").split()


def main(out: Path, jobs: str = "3") -> None:
    printed = tell(*RUN, *GRID, "--cluster", "slurm", "--partition", "low", "--workers", jobs, "--hours", "0.5",
                   "--checkpoint-seconds", "1", "--out", str(out / "slurm"))
    array = re.search(r"jobs: (\d+)_0", printed)[1]
    reported = 0
    while len(list((out / "slurm").glob("*/metrics.jsonl"))) < 3 or len(running()) < 2:
        time.sleep(0.5)
    time.sleep(3)
    first, second = running()[:2]
    tell("scontrol", "requeue", first)                    # killed by SLURM, and queued again
    tell("scancel", "--signal=USR2", second)              # writes a checkpoint and has itself requeued
    time.sleep(10)
    reported += "not over yet" in tell(*RUN, "report", str(out / "slurm"))
    tell("sbatch", "-p", "high", "-n", "4", "-o", "/dev/null", "--wrap", "sleep 20")   # takes every core from the sweep
    while tell("squeue", "-h", "-j", array, "-o", "%i").strip():
        reported += "not over yet" in tell(*RUN, "report", str(out / "slurm"))
        time.sleep(20)
    restarts = [int(count) for count in re.findall(r"Restarts=(\d+)", tell("scontrol", "show", "job", array))]
    lines = "".join(path.read_text() for path in (out / "slurm" / "jobs").glob("*.out"))
    finished, started = (re.findall(rf": {word} (\w{{12}}) ", lines) for word in ("finished", "started"))
    subprocess.run([*RUN, *GRID, "--workers", "1", "--out", str(out / "here")], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = rows(out / "slurm"), rows(out / "here")
    print(json.dumps({"runs": len(ours), "jobs": len(restarts), "restarts": restarts, "finished once": len(set(finished)),
                      "finished": len(finished), "begun": len(started), "reports midway": reported,
                      "equal": ours == theirs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
