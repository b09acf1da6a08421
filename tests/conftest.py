"""What all tests share: one thread, and hypothesis without a clock and with the same examples every time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("popup", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("popup")
