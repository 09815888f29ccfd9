"""The grid: one layer's queries and keys in every shape, dtype and layout that is timed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec.layouts import output_lanes
from rotary_spec.spec import LAYOUTS, Layout
from rotary_spec_backends.frameworks import Array, Framework, HostArray, NumpyFramework

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@dataclass(frozen=True)
class Case:
    """Queries and keys of one attention layer, of shape (batch, heads, length, head_dim).

    Attributes
    ----------
    length : int
        Tokens.
    dtype, layout : str
    q_heads, k_heads, head_dim : int
        Grouped-query heads as in Llama 3: 32 and 8 of 128. No k_heads: there are only queries.
    batch : int
    rotary_dim : int or None
        Rotated lanes, the first of each head; None: all.
    backward : bool
        The gradient with respect to queries and keys in place of the rotation.
    """

    length: int
    dtype: str
    layout: Layout
    q_heads: int = 32
    k_heads: int = 8
    head_dim: int = 128
    batch: int = 1
    rotary_dim: int | None = None
    backward: bool = False

    @property
    def spec(self) -> rs.RotarySpec:
        rotary_dim = self.head_dim if self.rotary_dim is None else self.rotary_dim
        return rs.RotarySpec(
            self.head_dim, base=500_000.0, layout=self.layout, rotary_dim=rotary_dim
        )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the queries and, where there are any, the keys."""
        heads = (self.q_heads, self.k_heads) if self.k_heads else (self.q_heads,)
        return tuple((self.batch, h, self.length, self.head_dim) for h in heads)

    @property
    def nbytes(self) -> int:
        """Read and written: 2 * elements * itemsize. Tables and positions are not counted."""
        return 2 * sum(int(np.prod(shape)) for shape in self.shapes) * ITEMSIZE[self.dtype]

    @property
    def name(self) -> str:
        heads = f"{self.q_heads}/{self.k_heads}" if self.k_heads else f"{self.q_heads}"
        shape = f"{self.batch} x {heads} x {self.length} x {self.head_dim}"
        parts = [shape, self.dtype, self.layout]
        if self.rotary_dim is not None:
            parts.append(f"{self.rotary_dim} rotated")
        return ", ".join(parts + ["backward"] * self.backward)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types, and the name."""
        return {"name": self.name, **asdict(self), "bytes": self.nbytes}


def grid(device: str, quick: bool) -> tuple[Case, ...]:
    """The cases of a device, "cpu" or "cuda": a few of them if ``quick``."""
    return (_cpu if device == "cpu" else _cuda)(quick)


def _cpu(quick: bool) -> tuple[Case, ...]:
    main = tuple(
        Case(4096, dtype, layout, k_heads=0)
        for dtype, layout in product(("float32", "bfloat16"), LAYOUTS)
    )
    if quick:
        return main
    half = main[1]
    decoding = tuple(
        Case(1, dtype, "half", batch=32) for dtype in ("float32", "bfloat16", "float16")
    )
    return (
        *main,
        *(replace(case, backward=True) for case in main),
        *(Case(4096, "float16", layout, k_heads=0) for layout in LAYOUTS),
        Case(4096, "float32", "half"),
        replace(half, rotary_dim=32),
        replace(half, head_dim=64),
        Case(131_072, "bfloat16", "half", q_heads=4, k_heads=1, head_dim=64),
        *decoding,
    )


def _cuda(quick: bool) -> tuple[Case, ...]:
    """256 MB and more, where the ratio to a copy is meant to be read; 64 MB; decoding."""
    large = tuple(
        Case(8192, dtype, layout, batch=4)
        for dtype, layout in product(("bfloat16", "float32"), LAYOUTS)
    )
    decoding = Case(1, "bfloat16", "half", batch=64)
    if quick:
        return (*large, replace(large[1], backward=True), decoding)
    halves = large[1], large[3]
    return (
        *large,
        *(replace(case, backward=True) for case in large),
        *(Case(4096, dtype, layout) for dtype, layout in product(("bfloat16",), LAYOUTS)),
        *(replace(case, rotary_dim=32) for case in halves),
        *(replace(case, head_dim=64) for case in halves),
        Case(8192, "float16", "half", batch=4),
        Case(131_072, "bfloat16", "half"),
        Case(131_072, "bfloat16", "interleaved"),
        decoding,
        Case(1, "bfloat16", "interleaved", batch=64),
    )


class Inputs:
    """The seeded arrays of one case, made once for each framework that asks.

    Backward, they are the gradients that come in, which have the shapes of what goes in.
    """

    def __init__(self, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.case = case
        self.host: tuple[HostArray, ...] = tuple(
            rng.standard_normal(shape, dtype=np.float32) for shape in case.shapes
        )
        self.positions = np.arange(case.length)
        self._made: dict[Any, tuple[Array, ...]] = {}

    def of(self, framework: Framework) -> tuple[Array, ...]:
        """The arrays of the case on a framework's device, in the case's dtype."""
        key = framework.name, framework.device
        if key not in self._made:
            self._made[key] = self._shared(framework) or tuple(
                framework.asarray(x, self.case.dtype) for x in self.host
            )
        return self._made[key]

    def _shared(self, framework: Framework) -> tuple[Array, ...] | None:
        """PyTorch on the CPU reads NumPy's memory, which so is as warm for one as for the other."""
        host = NumpyFramework()
        if framework.name != "torch" or framework.device not in (None, "cpu"):
            return None
        if self.case.dtype not in host.supported_dtypes():
            return None
        torch, dtype = framework.xp, getattr(framework.xp, self.case.dtype)
        bits = f"uint{8 * ITEMSIZE[self.case.dtype]}"
        return tuple(torch.from_numpy(x.view(bits)).view(dtype) for x in self.of(host))

    def expected(self, framework: Framework) -> tuple[list[HostArray], list[HostArray]]:
        """The last tokens' results and pair sizes: float64, from the rounded arrays."""
        rows = slice(-min(_ROWS, self.case.length), None)
        spec = self.case.spec.transposed() if self.case.backward else self.case.spec
        given = [framework.to_numpy(x[:1, :, rows]) for x in self.of(framework)]
        ids = self.positions[rows]
        return [rs.rotate(x, ids, spec) for x in given], [_pair_sums(x, spec) for x in given]

    def last_rows(self, results: tuple[Array, ...], framework: Framework) -> list[HostArray]:
        """The rows of results that `expected` has."""
        rows = slice(-min(_ROWS, self.case.length), None)
        return [framework.to_numpy(x[:1, :, rows]) for x in results]


_ROWS = 32


def _pair_sums(x: HostArray, spec: rs.RotarySpec) -> HostArray:
    """|a| + |b| of the pair that a lane belongs to, and |a| where it passes through."""
    first, second = (list(lanes) for lanes in output_lanes(spec))
    sums = np.abs(x)
    sums[..., first] = sums[..., second] = sums[..., first] + sums[..., second]
    return sums
