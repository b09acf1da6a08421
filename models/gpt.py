"""A small plain GPT in the form of Radford et al.'s GPT-2 (2019): it reads tokens and says of each place which comes next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .widths import scaled

HEADS, DEPTH = 4, 4


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees those before it; queries, keys and values in one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, tokens, width] -> the same
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # each [n, heads, tokens, width / heads]
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(seen.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    """Norm and attention, norm and two linear layers with GELU, each added to its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), CausalAttention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, tokens, width] -> the same
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """The tokens' embeddings and those of their places, blocks, a norm, and a linear layer that shares no weight with them."""

    def __init__(self, context: int, vocabulary: int, width: int, hidden: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # int64 [n, tokens] -> logits [n, tokens, vocabulary]
        x = self.tokens(tokens) + self.places.weight[:tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def gpt(window: Sequence[int], vocabulary: int, widths: Sequence[int] = (128, 512), *, width: float = 1.0) -> nn.Module:
    """Four blocks with 4 heads for windows [tokens]; `widths`: the tokens' and the hidden layers'.

    Token widths are rounded to multiples of 4.
    """
    if len(window) != 1:
        raise ValueError("gpt reads windows of tokens: give it a text, --dataset text: or text:FILE")
    if len(widths) != 2:
        raise ValueError(f"gpt takes 2 widths, of the tokens and of the hidden layers, and there are {len(widths)}")
    tokens, hidden = widths
    return GPT(window[0], vocabulary, *scaled((tokens,), width, HEADS), *scaled((hidden,), width))
