"""The machine: what a run asks of the process that it is in."""

import platform
import resource
from statistics import median

import pytest
import torch

from popup.lab.machine import keep_freed_memory

PAGES = 1 << 14


def new_pages():
    """The pages that the system hands out while a tensor of PAGES pages is made and thrown away."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(PAGES * 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told what to keep")
def test_memory_that_a_step_frees_is_there_for_the_next():
    keep_freed_memory()
    assert median(new_pages() for _ in range(9)) < PAGES / 16  # the first few may find a place a few bytes short


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    keep_freed_memory()
