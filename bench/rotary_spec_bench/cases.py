"""The grid of cases, the inputs of one, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec.spec import LAYOUTS, Layout
from rotary_spec_backends import Backend, Framework


@dataclass(frozen=True)
class Case:
    """Queries and keys of one attention layer.

    Attributes
    ----------
    length : int
        Tokens.
    dtype, layout : str
    q_heads, k_heads, head_dim : int
        Grouped-query heads as in Llama 3: 32 and 8 of 128.
    """

    length: int
    dtype: str
    layout: Layout
    q_heads: int = 32
    k_heads: int = 8
    head_dim: int = 128

    @property
    def spec(self) -> rs.RotarySpec:
        return rs.RotarySpec(self.head_dim, base=500_000.0, layout=self.layout)

    @property
    def name(self) -> str:
        return f"{self.length} tokens, {self.dtype}, {self.layout}"


CASES = tuple(
    Case(length, dtype, layout)
    for length, dtype, layout in product((1, 4096), ("float32", "bfloat16"), LAYOUTS)
)


def inputs(case: Case, framework: Framework) -> tuple[Any, Any, Any]:
    """q, k of shape (1, heads, length, head_dim) and positions, seeded, on the framework."""
    rng = np.random.default_rng(0)
    q, k = (
        framework.asarray(
            rng.standard_normal((1, heads, case.length, case.head_dim), dtype=np.float32),
            case.dtype,
        )
        for heads in (case.q_heads, case.k_heads)
    )
    return q, k, framework.asarray(np.arange(case.length), "int64")


def copy(arrays: tuple[Any, ...], framework: Framework) -> tuple[Any, ...]:
    """Fresh copies of the arrays: the same bytes read and written as a rotation needs."""
    if framework.name == "torch":
        return tuple(x.clone() for x in arrays)
    if framework.name == "jax":
        return tuple(framework.xp.numpy.array(x, copy=True).block_until_ready() for x in arrays)
    return tuple(x.copy() for x in arrays)


def error(case: Case, backend: Backend) -> float:
    """Largest deviation of the backend from the float64 reference, on the first rows of a case."""
    framework = backend.framework
    q, _, positions = inputs(case, framework)
    rows = min(64, case.length)
    out = framework.to_numpy(backend.rotate(q, positions, case.spec))[:, :, -rows:]
    ids = np.arange(case.length)[-rows:]
    expected = rs.rotate(framework.to_numpy(q)[:, :, -rows:], ids, case.spec)
    return float(np.abs(out - expected).max())
