"""NumPy on the CPU: a compiled kernel where Numba is installed, blocks that stay in cache else."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend, plain_axes
from rotary_spec_backends.frameworks import Array, HostArray, NumpyFramework
from rotary_spec_backends.host import small, threads
from rotary_spec_backends.host.route import host_items, no_numba, rotate_host


class NumpyBackend(Backend):
    """The spec in NumPy: always available, float32 arithmetic, several threads.

    With the extra ``numba`` a kernel does it, compiled on its first call for a dtype and a layout
    (a second each) and kept on disk; ``ROTARY_SPEC_NUMBA=0`` in the environment leaves it out. Both
    ways of rotating give the same numbers up to the rounding of float32. ``NUMBA_NUM_THREADS`` or
    ``OMP_NUM_THREADS`` limits the threads.
    """

    name = "numpy"
    extra = "cli"  # NumPy is a core dependency: there is nothing to add
    framework_type = NumpyFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...] | str:
        return ("cpu",)

    def route(self) -> str:
        """Which engine rotates: "numba", or "numpy" with the reason."""
        reason = no_numba()
        return "numba" if reason is None else f"numpy ({reason})"

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
        outs = _new(arrays)
        items, ids = host_items(outs, arrays, axes), np.asarray(positions)
        plan = rotate_host(items, ids, spec, seq_len, threads.num_threads, fresh=True)
        if plan is not None:
            small.remember(_signature(arrays, None, ids, spec, axes, seq_len), plan)
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
        items, ids = host_items(outs, arrays, axes), np.asarray(positions)
        plan = rotate_host(items, ids, spec, seq_len, threads.num_threads)
        if plan is not None:
            small.remember(_signature(arrays, outs, ids, spec, axes, seq_len), plan)

    def _again(
        self, x: Any, positions: Any, spec: Any, seq_axis: Any, seq_len: Any, out: Any
    ) -> tuple[HostArray, ...] | None:
        arrays = x if type(x) is tuple else (x,)
        given = out if out is None or type(x) is tuple else (out,)
        if given is not None and (type(given) is not tuple or len(given) != len(arrays)):
            return None
        every = (positions, *arrays, *(given or ()))
        if any(type(array) is not np.ndarray for array in every):
            return None
        axes = plain_axes(arrays, spec, seq_axis, seq_len)
        if axes is None:
            return None
        signature = _signature(arrays, given, positions, spec, axes, seq_len)
        plan = small.find(signature) if no_numba() is None else None
        if plan is None:
            return None
        outs = _new(arrays) if given is None else given
        addresses = [(array.ctypes.data, y.ctypes.data) for array, y in zip(arrays, outs)]
        if given is not None and not small.apart(plan, addresses):
            return None
        small.run(plan, addresses, positions.ctypes.data)
        return outs


def _new(arrays: tuple[HostArray, ...]) -> tuple[HostArray, ...]:
    return tuple(np.empty(x.shape, x.dtype) for x in arrays)


def _signature(
    arrays: tuple[HostArray, ...],
    outs: tuple[HostArray, ...] | None,
    positions: HostArray,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Hashable:
    every = (positions, *arrays, *(outs or ()))
    kinds = [(a.dtype, a.shape, a.strides, a.flags.aligned) for a in every]
    given = [
        (y.flags.writeable, x.ctypes.data == y.ctypes.data) for x, y in zip(arrays, outs or ())
    ]
    return spec, axes, seq_len, *kinds, *given
