"""What broken rotary embeddings are made of: the specs, the right code, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import rotary_spec as rs
from rotary_spec_conformance import Target
from rotary_spec_conformance.inference import framework_named

DIM = 16
HALF = rs.RotarySpec(head_dim=DIM, layout="half")
INTERLEAVED = rs.RotarySpec(head_dim=DIM)
PARTIAL = rs.RotarySpec(head_dim=DIM, layout="half", rotary_dim=8)
LAST = rs.RotarySpec(head_dim=DIM, layout="half", rotary_dim=8, rotary_start=8)
LINEAR = rs.RotarySpec(head_dim=DIM, layout="half", schedule=rs.Linear(factor=4))
LLAMA3 = rs.RotarySpec(
    head_dim=DIM, base=500_000.0, layout="half", schedule=rs.Llama3(8.0, 1.0, 4.0, 8192)
)
SCALED = rs.RotarySpec(head_dim=DIM, layout="half", attention_factor=1.2)


@dataclass(frozen=True)
class Broken:
    """A faulty implementation.

    ``says`` is what a message of the clause must contain, so that a reader learns what is wrong.
    """

    name: str
    clause: str
    says: str
    target: Target
    spec: rs.RotarySpec


def faults_into(broken: dict[str, Broken]) -> Callable[..., Callable[[Any], Any]]:
    """The decorator of a module's faults, which enters them there."""

    def fault(
        clause: str,
        says: str,
        spec: rs.RotarySpec = HALF,
        framework: str = "torch",
        **declared: Any,
    ) -> Callable[[Any], Any]:
        """Enter a function ``f(x, positions)``, or a class whose instances are called so."""

        def enter(implementation: Any) -> Any:
            name, fresh = implementation.__name__, isinstance(implementation, type)
            target = Target(
                name=name,
                build=implementation if fresh else lambda: implementation,
                framework=framework_named(framework),
                head_dim=spec.head_dim,
                fresh=fresh,
                **declared,
            )
            assert name not in broken
            broken[name] = Broken(name, clause, says, target, spec)
            return implementation

        return enter

    return fault


def frequencies(dim: int = DIM, base: float = 10_000.0) -> torch.Tensor:
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def table(positions: torch.Tensor, theta: torch.Tensor | None = None) -> Any:
    angle = positions[..., None].double() * (frequencies() if theta is None else theta)
    return angle.cos().float(), angle.sin().float()


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def turn_neighbours(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (2i, 2i + 1)."""
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)


def consecutive(offset: int, count: int) -> torch.Tensor:
    return offset + torch.arange(count)
