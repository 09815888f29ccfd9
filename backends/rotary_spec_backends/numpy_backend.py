"""NumPy, and whatever shares its array interface (see `cupy_backend`)."""

from __future__ import annotations

from typing import Any

from rotary_spec._array import move_axis
from rotary_spec.layouts import block_lanes, rotated_lanes, split_pairs
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend, tables
from rotary_spec_backends.frameworks import Array, NumpyFramework


class NumpyBackend(Backend):
    """The spec in NumPy: always available, float32 arithmetic, no copies but the result."""

    name = "numpy"
    extra = "cli"  # NumPy is a core dependency: there is nothing to add
    framework_type = NumpyFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...] | str:
        return ("cpu",)

    def _ids(self, positions: Any, like: Array) -> Array:
        return positions

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        from array_api_compat import array_namespace

        cos, sin = tables(positions, spec, seq_len, array_namespace(positions))
        narrow = cos.astype("float32"), sin.astype("float32")
        return tuple(
            self._apply(x, *((cos, sin) if x.dtype == "float64" else narrow), spec, axis)
            for x, axis in zip(arrays, axes)
        )

    def _apply(self, x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int) -> Array:
        xp = self.framework.xp
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
