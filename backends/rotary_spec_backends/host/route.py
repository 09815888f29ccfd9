"""Which engine rotates arrays on the CPU, and the call of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rotary_spec._array import dtype_name
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants, tables
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import blocked, compiled, small, threads

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
    items = []
    for out, x, axis in zip(outs, arrays, axes):
        dtype = dtype_name(x)
        pair = np.asarray(out), np.asarray(x)
        target, source = (a.view(np.uint16) for a in pair) if dtype == "bfloat16" else pair
        items.append((target, source, dtype, axis))
    return items


def rotate_host(
    items: Sequence[blocked.Item],
    positions: HostArray,
    spec: RotarySpec,
    seq_len: int | None,
    limit: Callable[[], int],
    *,
    fresh: bool = False,
) -> small.Plan | None:
    """Rotate every source of ``items`` into its target, the same memory or other.

    Parameters
    ----------
    items : sequence of (target, source, dtype, seq_axis)
        NumPy arrays, bfloat16 as uint16; the axis is counted from the end.
    positions : array
        Integers, or coordinates for a spec with sections; checked.
    spec, seq_len
        As for `Backend.rotate`.
    limit : callable
        Says how many threads may be used; asked where several are worth while.
    fresh : bool
        Whether the targets are memory that nothing was written to before.

    Returns
    -------
    small.Plan or None
        The plan of a small call, if one like it can go by it with no more than addresses.
    """
    by_kernel = [item for item in items if _fits(*item)] if no_numba() is None else []
    size = sum(source.nbytes for _, source, _, _ in items)
    if size < threads.WORTHWHILE and len(by_kernel) == len(items):
        plan = small.plan(items, size, positions, spec, seq_len)
        if plan is not None:
            ids = np.ascontiguousarray(positions, dtype=np.int64)
            addresses = [(x.ctypes.data, y.ctypes.data) for y, x, _, _ in items]
            small.run(plan, addresses, ids.ctypes.data)
            return plan if ids is positions else None
    count = 1 if size < threads.WORTHWHILE else limit()
    if by_kernel:
        shape = positions.shape[1:] if spec.sections else positions.shape
        found = {wide: host_tables(positions, spec, seq_len, wide, count)
                 for wide in {item[2] == "float64" for item in by_kernel}}  # fmt: skip
        threads.run(
            (
                job
                for target, source, dtype, axis in by_kernel
                for job in compiled.rotate_rows(
                    _words(target, dtype), _words(source, dtype), dtype,
                    found[dtype == "float64"], shape, spec, axis, count, fresh,
                )
            ),
            count,
        )  # fmt: skip
    if len(by_kernel) < len(items):
        rest = [item for item in items if all(item is not done for done in by_kernel)]
        threads.run(blocked.jobs(rest, positions, spec, seq_len), count)
    return None


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
        factors = compiled.table_factors(spec, magnitude)
        return compiled.float32_table(positions, turns, factors, limit)
    from array_api_compat import numpy as xp

    dtype: Any = np.float64 if wide else np.float32
    cos, sin = tables(positions, spec, seq_len, xp)
    return np.ascontiguousarray(cos, dtype), np.ascontiguousarray(sin, dtype)
