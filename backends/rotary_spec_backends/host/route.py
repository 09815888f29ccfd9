"""Which engine rotates arrays on the CPU, and the call of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rotary_spec._array import dtype_name
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants, tables
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import blocked, compiled, threads

ENVIRONMENT = "ROTARY_SPEC_NUMBA"
"""Environment variable that, set to 0, keeps Numba from being used where it is installed."""


def no_numba() -> str | None:
    """Why the CPU kernel is not used; None where it is."""
    if os.environ.get(ENVIRONMENT) == "0":
        return f"${ENVIRONMENT}=0"
    return compiled.unusable()


def host_items(
    outs: Sequence[HostArray], arrays: Sequence[HostArray], axes: Sequence[int]
) -> list[blocked.Item]:
    """NumPy arrays as `rotate_host` takes them: bfloat16 as its bits."""

    def words(x: Any) -> Any:
        x = np.asarray(x)
        return x.view(np.uint16) if dtype_name(x) == "bfloat16" else x

    return [(words(out), words(x), dtype_name(x), axis) for out, x, axis in zip(outs, arrays, axes)]


def rotate_host(
    items: Sequence[blocked.Item],
    positions: HostArray,
    spec: RotarySpec,
    seq_len: int | None,
    limit: int,
    *,
    fresh: bool = False,
) -> None:
    """Rotate every source of ``items`` into its target, the same memory or other.

    Parameters
    ----------
    items : sequence of (target, source, dtype, seq_axis)
        NumPy arrays, bfloat16 as uint16; the axis is counted from the end.
    positions : array
        Integers, or coordinates for a spec with sections; checked.
    spec, seq_len
        As for `Backend.rotate`.
    limit : int
        How many threads may be used.
    fresh : bool
        Whether the targets are memory that nothing was written to before.
    """
    if sum(source.nbytes for _, source, _, _ in items) < threads.WORTHWHILE:
        limit = 1
    by_kernel = [item for item in items if no_numba() is None and _fits(*item)]
    if by_kernel:
        shape = positions.shape[1:] if spec.sections else positions.shape
        found = {wide: host_tables(positions, spec, seq_len, wide, limit)
                 for wide in {item[2] == "float64" for item in by_kernel}}  # fmt: skip
        threads.run(
            (
                job
                for target, source, dtype, axis in by_kernel
                for job in compiled.rotate_rows(
                    _words(target, dtype), _words(source, dtype), dtype,
                    found[dtype == "float64"], shape, spec, axis, limit, fresh,
                )
            ),
            limit,
        )  # fmt: skip
    rest = [item for item in items if all(item is not done for done in by_kernel)]
    if rest:
        threads.run(blocked.jobs(rest, positions, spec, seq_len), limit)


def _fits(target: HostArray, source: HostArray, dtype: str, axis: int) -> bool:
    """Whether the kernel reaches the arrays: lanes side by side, elements where they belong."""
    return (
        source.strides[-1] == target.strides[-1] == source.itemsize
        and source.flags.aligned
        and target.flags.aligned
        and compiled.has_dtype(dtype)
    )


def _words(x: HostArray, dtype: str) -> HostArray:
    return x.view(np.int16) if dtype == "float16" else x


def host_tables(
    positions: HostArray, spec: RotarySpec, seq_len: int | None, wide: bool, limit: int
) -> tuple[HostArray, HostArray]:
    """A cos and A sin, one row for each position, side by side."""
    if not wide and spec.sections is None:
        turns, magnitude = constants(spec, seq_len)
        factors = magnitude, -magnitude if spec.inverse else magnitude
        return compiled.float32_table(positions, turns, factors, limit)
    from array_api_compat import numpy as xp

    dtype: Any = np.float64 if wide else np.float32
    cos, sin = tables(positions, spec, seq_len, xp)
    return np.ascontiguousarray(cos, dtype), np.ascontiguousarray(sin, dtype)
