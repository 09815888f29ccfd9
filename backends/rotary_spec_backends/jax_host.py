"""JAX on the CPU: the Numba kernel on the memory of concrete arrays.

XLA gives its outputs new small pages, which takes longer than a rotation. Traced functions are
XLA's all the same.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.frameworks import Array
from rotary_spec_backends.host import threads
from rotary_spec_backends.host.route import host_items, no_numba, rotate_host

WORTHWHILE = threads.WORTHWHILE
"""Bytes of the arrays below which XLA answers sooner."""

_ALIGNMENT = 64  # of memory that JAX takes as it is


def refusal(arrays: tuple[Array, ...], positions: Array) -> str | None:
    """Why a call is XLA's; None where the kernel has it."""
    if any(isinstance(x, jax.core.Tracer) for x in (*arrays, positions)):
        return "traced"
    if sum(x.nbytes for x in arrays) < WORTHWHILE:
        return "small arrays"
    for x in (*arrays, positions):
        if not x.is_fully_addressable or {d.platform for d in x.devices()} != {"cpu"}:
            return "a device that is not the CPU"
        if len(x.devices()) != 1:
            return "several devices"
    return no_numba()


def rotate(
    arrays: tuple[Array, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> tuple[Array, ...]:
    """`Backend._rotate` of what `refusal` lets pass."""
    hosts = [np.asarray(x) for x in arrays]
    outs = [_aligned(x.shape, x.dtype) for x in hosts]
    items = host_items(outs, hosts, axes)
    rotate_host(items, np.asarray(positions), spec, seq_len, threads.num_threads, fresh=True)
    # Nobody writes to the memory from here on: JAX may have it without a copy.
    return tuple(
        jax.device_put(out, x.device if x.committed else None, may_alias=True)
        for out, x in zip(outs, arrays)
    )


def _aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
