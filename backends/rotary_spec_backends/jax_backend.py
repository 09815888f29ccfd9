"""JAX: one jitted function per spec and shape; under jit, vmap and grad too, with x64 on or off.

Large concrete arrays on the CPU go through the Numba kernel, where Numba is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend, require_float32, require_int32
from rotary_spec_backends.frameworks import Array, JaxFramework


class JaxBackend(Backend):
    """The spec in JAX. Without x64 the phases come from 32-bit integers, to the same bits."""

    name = "jax"
    extra = "jax"
    framework_type = JaxFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...] | str:
        import jax

        return tuple(
            f"{'cuda' if d.platform == 'gpu' else d.platform}:{d.id}" for d in jax.devices()
        )

    def _ids(self, positions: Any, like: Array) -> Array:
        import jax

        if not jax.config.jax_enable_x64:
            require_int32(positions)
            if positions.dtype.kind == "f":
                require_float32(positions)
            positions = positions.astype(np.float32 if positions.dtype.kind == "f" else np.int32)
        return jax.numpy.asarray(positions)

    def route(
        self,
        x: Array | Sequence[Array],
        positions: Array,
        spec: RotarySpec,
        *,
        seq_axis: int = -2,
        seq_len: int | None = None,
    ) -> str:
        """How `rotate` would go about this call: "cpu", the Numba kernel, or "xla" and why.

        Takes what `rotate` does, and raises what it does.
        """
        from rotary_spec_backends import jax_host

        arrays, positions, _ = self._checked(x, positions, spec, seq_axis)
        reason = jax_host.refusal(arrays, positions)
        return "cpu" if reason is None else f"xla (cpu: {reason})"

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        from rotary_spec_backends import jax_host
        from rotary_spec_backends.kernels.jax_rotation import rotate_all

        if jax_host.refusal(arrays, positions) is None:
            return jax_host.rotate(arrays, positions, spec, axes, seq_len)
        rotated: tuple[Array, ...] = rotate_all(arrays, positions, spec, axes, seq_len)
        return rotated

    def _run(
        self, form: Any, options: LinearAttentionOptions, chunk: int, xp: Any, *arrays: Any
    ) -> Any:
        from rotary_spec_backends import jax_attention

        jax_attention.register_state()
        return jax_attention.jitted()(form, options, chunk, *arrays)

    def _softmax_attention(self, *arguments: Any) -> Array:
        from rotary_spec_backends import jax_attention

        return jax_attention.jitted_softmax()(*arguments)
