"""The activations that networks here come in: ReLU, and ELU as signed supermasks have it (Koster et al., ICLR 2022)."""

from __future__ import annotations

from torch import nn

Activation = type[nn.ReLU] | type[nn.ELU]
