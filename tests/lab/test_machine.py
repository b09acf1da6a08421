"""The machine: what a run asks of the process that it is in."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from popup.lab.machine import Machine, keep_freed_memory

ROOT = Path(__file__).parents[2]
PAGES = 1 << 14  # 64 MiB: more than glibc keeps by itself
MEASURE = f"""
import resource
from statistics import median
import torch
from popup.lab.machine import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({PAGES} * 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(int(median(new_pages() for _ in range(9))))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told what to keep")
def test_memory_that_a_step_frees_is_there_for_the_next():
    """In a process of its own, as a run is: by the median, since the first few may find a place a few bytes short. One process
    of some hundred was seen that mapped each piece anew, as if its heap had no room to grow: three in a row are no chance."""
    def measured():
        return int(subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert any(measured() < PAGES / 16 for _ in range(3))


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()


@pytest.mark.parametrize(("environment", "cores"), [
    ({}, 10), ({"LOCAL_WORLD_SIZE": "5"}, 2), ({"LOCAL_WORLD_SIZE": "16"}, 1),
    ({"LOCAL_WORLD_SIZE": "8", "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_CPUS_PER_TASK": "10"}, 10),  # bound by SLURM
    ({"LOCAL_WORLD_SIZE": "5", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_CPUS_PER_TASK": "10"}, 2),   # torchrun in a task
    ({"LOCAL_WORLD_SIZE": "5", "SLURM_STEP_TASKS_PER_NODE": "5", "SLURM_CPUS_PER_TASK": "2"}, 2)])        # not bound
def test_ranks_share_cores_unless_slurm_has_bound_each_to_its_own(environment, cores, monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("popup.lab.machine.usable_cores", lambda: 10)
    assert Machine("cpu").cores == cores
