"""JAX: one jitted function per spec and shape; under jit, vmap and grad too, with x64 on or off."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from rotary_spec._array import move_axis
from rotary_spec.layouts import put_pairs, rotated_lanes, take_pairs
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import Backend, require_float32, require_int32, tables
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

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        return _jitted()(arrays, positions, spec, axes, seq_len)  # type: ignore[no-any-return]

    def _run(
        self, form: Any, options: LinearAttentionOptions, chunk: int, xp: Any, *arrays: Any
    ) -> Any:
        from rotary_spec_backends import jax_attention

        jax_attention.register_state()
        return jax_attention.jitted()(form, options, chunk, *arrays)

    def _softmax_attention(self, *arguments: Any) -> Array:
        from rotary_spec_backends import jax_attention

        return jax_attention.jitted_softmax()(*arguments)


@cache
def _jitted() -> Any:
    import jax

    return jax.jit(rotate_all, static_argnums=(2, 3, 4))


def rotate_all(
    arrays: tuple[Array, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> tuple[Array, ...]:
    """The traceable rotation of several arrays by one table."""
    import jax.numpy as jnp

    cos, sin = tables(positions, spec, seq_len, jnp)
    return tuple(_apply(x, cos, sin, spec, axis) for x, axis in zip(arrays, axes))


def _apply(x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int) -> Array:
    import jax.numpy as jnp

    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    cos, sin = cos.astype(dtype), sin.astype(dtype)
    lanes = move_axis(x, axis, -2, jnp)
    rotated = rotated_lanes(spec)
    first, second = (part.astype(dtype) for part in take_pairs(lanes, spec, jnp))
    turned = put_pairs(first * cos - second * sin, second * cos + first * sin, spec, jnp)
    turned = turned.astype(x.dtype)
    parts = [lanes[..., : rotated.start], turned, lanes[..., rotated.stop :]]
    return move_axis(jnp.concat(parts, axis=-1), -2, axis, jnp)
