"""A small pre-norm transformer whose attention is this library's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_bench.experiment.settings import Settings, Task, Variant


class Attention(nn.Module):  # type: ignore[misc]
    """Multi-head attention: linear and causal (RoFormer Eq. 19), or softmax over all tokens.

    Without RoPE every token stands at position 0, where the rotation is the identity: variants
    run the same code, operation for operation.
    """

    def __init__(self, settings: Settings, task: Task, rotary: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.rotary = settings.heads, task.kind == "causal", rotary
        self.spec = rs.RotarySpec(settings.width // settings.heads)
        self.backend = select("torch")
        self.qkv = nn.Linear(settings.width, 3 * settings.width, bias=False)
        self.out = nn.Linear(settings.width, settings.width, bias=False)

    def forward(self, x: Any) -> Any:
        """Attend over x of shape (batch, context, width)."""
        batch, context, _ = x.shape
        q, k, v = self.qkv(x).view(batch, context, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        positions = torch.arange(context) if self.rotary else torch.zeros(context, dtype=torch.long)
        if self.causal:
            out = self.backend.linear_attention(
                q, k, v, positions, self.spec, feature_map="elu+1", causal=True
            )
        else:
            out = self.backend.attention(q, k, v, positions, self.spec)
        return self.out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):  # type: ignore[misc]
    """Attention and a hidden layer, each added to what came in."""

    def __init__(self, settings: Settings, task: Task, rotary: bool) -> None:
        super().__init__()
        width = settings.width
        self.attention = Attention(settings, task, rotary)
        self.hidden = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Any) -> Any:
        """Shape (batch, context, width), in and out."""
        x = x + self.attention(self.norms[0](x))
        return x + self.hidden(self.norms[1](x))


class Model(nn.Module):  # type: ignore[misc]
    """Logits of every character at every place.

    Parameters
    ----------
    characters : int
        Of the alphabet; number ``characters`` is the mask.
    """

    def __init__(self, settings: Settings, task: Task, variant: Variant, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters + 1, settings.width)
        blocks = [Block(settings, task, variant.rotary) for _ in range(settings.layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(settings.width)
        self.head = nn.Linear(settings.width, characters)
        table = sinusoids(settings.context, settings.width)
        self.register_buffer("added", table if variant.sinusoids else torch.zeros_like(table))

    def forward(self, ids: Any) -> Any:
        """From ids of shape (batch, context) to logits (batch, context, characters)."""
        x = self.embedding(ids) + self.added[: ids.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def sinusoids(context: int, width: int) -> Any:
    """The table of RoFormer Eq. 4, float32, shape (context, width)."""
    cos, sin = rs.cos_sin(torch.arange(context), rs.RotarySpec(width))
    return torch.stack([sin, cos], dim=-1).flatten(1)


def loss_of(model: Model, ids: Any, targets: Any, counted: Any) -> Any:
    """Mean cross-entropy in nats over the places where ``counted`` is true."""
    return functional.cross_entropy(model(ids)[counted], targets[counted])
