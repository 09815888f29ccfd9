"""The rotation by whole-array operations, for array modules that look like NumPy."""

from __future__ import annotations

from typing import Any

from rotary_spec._array import move_axis
from rotary_spec.layouts import block_lanes, rotated_lanes, split_pairs
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import tables
from rotary_spec_backends.frameworks import Array


def rotate_elementwise(
    arrays: tuple[Array, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
    xp: Any,
) -> tuple[Array, ...]:
    """`Backend._rotate` with the functions of ``xp``, which may be NumPy or CuPy."""
    from array_api_compat import array_namespace

    cos, sin = tables(positions, spec, seq_len, array_namespace(positions))
    narrow = cos.astype("float32"), sin.astype("float32")
    return tuple(
        _apply(x, *((cos, sin) if x.dtype == "float64" else narrow), spec, axis, xp)
        for x, axis in zip(arrays, axes)
    )


def _apply(x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int, xp: Any) -> Array:
    out = xp.empty(x.shape, dtype=x.dtype)
    lanes, result = move_axis(x, axis, -2, xp), move_axis(out, axis, -2, xp)
    for block, (start, count) in zip(block_lanes(spec), spec.blocks):
        first, second = (
            part.astype(cos.dtype, copy=False)
            for part in split_pairs(lanes[..., block], spec.layout)
        )
        to_first, to_second = split_pairs(result[..., block], spec.output_layout or spec.layout)
        c, s = cos[..., start : start + count], sin[..., start : start + count]
        to_first[...] = first * c - second * s
        to_second[...] = second * c + first * s
    rotated = rotated_lanes(spec)
    for kept in (slice(0, rotated.start), slice(rotated.stop, None)):
        result[..., kept] = lanes[..., kept]
    return out
