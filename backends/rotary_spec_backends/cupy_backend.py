"""CuPy: the NumPy adapter on CUDA arrays."""

from __future__ import annotations

from typing import Any

from rotary_spec_backends.frameworks import Array, CupyFramework
from rotary_spec_backends.numpy_backend import NumpyBackend


class CupyBackend(NumpyBackend):
    """The spec in CuPy. Exact phases need int64 and float64 for the table only."""

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
