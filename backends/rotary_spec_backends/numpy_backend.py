"""NumPy on the CPU: a compiled kernel where Numba is installed, blocks that stay in cache else."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend
from rotary_spec_backends.frameworks import Array, NumpyFramework
from rotary_spec_backends.host import threads
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
        outs = tuple(np.empty(x.shape, x.dtype) for x in arrays)
        self._rotate_into(outs, arrays, positions, spec, axes, seq_len, fresh=True)
        return outs

    def _rotate_into(
        self,
        outs: tuple[Array, ...],
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
        fresh: bool = False,
    ) -> None:
        items = host_items(outs, arrays, axes)
        ids, limit = np.asarray(positions), threads.num_threads()
        rotate_host(items, ids, spec, seq_len, limit, fresh=fresh)
