"""CuPy: a CUDA kernel, and whole-array operations for what it does not take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend
from rotary_spec_backends.elementwise import rotate_elementwise
from rotary_spec_backends.frameworks import Array, CupyFramework
from rotary_spec_backends.kernels import cupy_rotation


class CupyBackend(Backend):
    """The spec in CuPy. The kernel is compiled on its first call for a dtype and a spec's lanes."""

    name = "cupy"
    extra = "cupy-cuda13"
    framework_type = CupyFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...] | str:
        import cupy

        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"no CUDA device ({error})"
        return tuple(f"cuda:{i}" for i in range(count)) or "no CUDA device"

    def _ids(self, positions: Any, like: Array) -> Array:
        with like.device:
            return self.framework.xp.asarray(positions)

    def route(
        self, x: Array | Sequence[Array], positions: Array, spec: RotarySpec, *, seq_axis: int = -2
    ) -> str:
        """How `rotate` would go about this call: "cuda", or "elementwise" and why."""
        arrays, positions, axes = self._checked(x, positions, spec, seq_axis)
        reason = cupy_rotation.refusal(arrays, positions, spec, axes, None)
        return "cuda" if reason is None else f"elementwise (cuda: {reason})"

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        xp = self.framework.xp
        outs = tuple(xp.empty(x.shape, x.dtype) for x in arrays)
        self._rotate_into(outs, arrays, positions, spec, axes, seq_len)
        return outs

    def _rotate_into(
        self,
        outs: tuple[Array, ...],
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> None:
        if cupy_rotation.rotate_into(outs, arrays, positions, spec, axes, seq_len) is not None:
            xp = self.framework.xp
            rotated = rotate_elementwise(arrays, positions, spec, axes, seq_len, xp)
            for out, y in zip(outs, rotated):
                out[...] = y
