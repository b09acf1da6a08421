"""A small vision transformer in the plain form of Beyer, Zhai and Kolesnikov (arXiv 2205.01580): fixed sine positions and
a mean over the tokens, so that there is no class token or position table: every parameter is a weight, a bias or a norm's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .widths import scaled

HEADS, DEPTH = 3, 6
STEP = 12  # token widths are its multiples: divisible by the heads, and by 4 for the sines


def patch_sides(height: int, width: int) -> tuple[int, int]:
    """Of the smallest square from side 2 on that divides the image and leaves at most 8x8 patches; the whole image if none does.

    Patches of one pixel would reach only few channels of a token where the embedding is sparse.
    """
    longest = max(height, width)
    sides = range(max(2, -(-longest // 8)), longest + 1)
    return next(((side, side) for side in sides if height % side == 0 and width % side == 0), (height, width))


def positions(rows: int, columns: int, width: int) -> torch.Tensor:
    """Fixed sine and cosine positions of a grid: float [1, rows * columns, width]."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4) / max(1, width // 4 - 1))  # [width / 4]
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()  # [tokens, 2]
    angles = (places[:, :, None] * frequencies).flatten(1)  # [tokens, width / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=1)[None]


class Attention(nn.Module):
    """Multi-head self-attention, queries, keys and values in one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, tokens, width] -> the same
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # each [n, heads, tokens, width / heads]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))


class EncoderBlock(nn.Module):
    """Norm and attention, norm and two linear layers with GELU, each added to its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, tokens, width] -> the same
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, their positions, blocks, a norm, the mean over the tokens, a linear layer."""

    def __init__(self, image: Sequence[int], classes: int, width: int, hidden: int) -> None:
        super().__init__()
        channels, height, across = image
        down, right = sides = patch_sides(height, across)
        self.patches = nn.Conv2d(channels, width, sides, stride=sides)
        self.register_buffer("positions", positions(height // down, across // right, width), persistent=False)
        self.blocks = nn.Sequential(*(EncoderBlock(width, hidden) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, c, h, w] -> [n, classes]
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # [n, tokens, width]
        return self.out(self.norm(self.blocks(tokens + self.positions)).mean(1))


def vit(image: Sequence[int], classes: int, widths: Sequence[int] = (192, 768), *, width: float = 1.0) -> nn.Module:
    """Six blocks with 3 heads on at most 8x8 patches; `widths`: the tokens' (DeiT-Ti's 192) and the hidden layer's.

    Token widths are rounded to multiples of 12.
    """
    if len(widths) != 2:
        raise ValueError(f"vit takes 2 widths, of the tokens and of the hidden layer, and there are {len(widths)}")
    tokens, hidden = widths
    return VisionTransformer(image, classes, *scaled((tokens,), width, STEP), *scaled((hidden,), width))
