"""The rotation as one JAX primitive, which knows its own derivative and how to be batched.

Derivatives and batches so are rotations again, compiled as well as the rotation itself; those of
the expressions in `jax_formulations`, taken operation by operation, are several times slower.
Forward and reverse mode, their compositions, and vmap work. It is linear in ``x``; the tables cos
and sin have no derivative, as positions have none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import tables
from rotary_spec_backends.frameworks import Array
from rotary_spec_backends.kernels.jax_formulations import general, wide

_rotate = Primitive("rotary_rotate")


@partial(jax.jit, static_argnums=(2, 3, 4))
def rotate_all(
    arrays: tuple[Array, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> tuple[Array, ...]:
    """`Backend._rotate`, compiled once for every combination of spec and shapes."""
    cos, sin = map(_computed_once, tables(positions, spec, seq_len, jnp))
    return tuple(rotate(x, cos, sin, spec, axis) for x, axis in zip(arrays, axes))


def _computed_once(values: Array) -> Array:
    """``values``, which XLA stores.

    On CPUs it counts cos and sin as cheap, drops optimization barriers, and would compute tables
    anew for every head. A division is too dear for that, by something that it does not see is one.
    """
    bits = jax.lax.bitcast_convert_type(values, f"int{8 * values.dtype.itemsize}")
    return values / jnp.where((bits | 1) != 0, 1.0, 2.0).astype(values.dtype)


def rotate(x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int) -> Array:
    """Rotate ``x`` by tables of shape (..., seq, pairs); ``axis`` is the sequence axis of ``x``."""
    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    aligned = []
    for values in (cos, sin):
        values = values.reshape((1,) * (x.ndim - values.ndim) + values.shape).astype(dtype)
        aligned.append(values if axis == -2 else jnp.moveaxis(values, -2, axis))
    rotated: Array = _rotate.bind(x, *aligned, spec=spec)
    return rotated


def _transpose(gradient: Any, x: Any, cos: Array, sin: Array, *, spec: RotarySpec) -> Any:
    if type(gradient) is ad.Zero:
        return ad.Zero(x.aval), None, None
    # The transposed spec exchanges the layouts; its direction is in the sign of sin.
    return _rotate.bind(gradient, cos, -sin, spec=spec.transposed()), None, None


def _jvp(primals: Any, tangents: Any, *, spec: RotarySpec) -> Any:
    x, cos, sin = primals
    rotated = _rotate.bind(x, cos, sin, spec=spec)
    if type(tangents[0]) is ad.Zero:
        return rotated, ad.Zero.from_primal_value(rotated)
    return rotated, _rotate.bind(tangents[0], cos, sin, spec=spec)


def _batch(operands: Any, axes: Any, *, spec: RotarySpec) -> Any:
    size = next(x.shape[a] for x, a in zip(operands, axes) if a is not None)
    first = [x[None] if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(operands, axes)]
    if axes[0] is None:
        first[0] = jnp.broadcast_to(first[0], (size, *first[0].shape[1:]))
    return _rotate.bind(*first, spec=spec), 0


_rotate.def_impl(general)
_rotate.def_abstract_eval(lambda x, cos, sin, *, spec: x)
ad.primitive_jvps[_rotate] = _jvp
ad.primitive_transposes[_rotate] = _transpose
batching.primitive_batchers[_rotate] = _batch
mlir.register_lowering(_rotate, mlir.lower_fun(general, multiple_results=False))
for _platform in ("cuda", "rocm"):
    mlir.register_lowering(
        _rotate, mlir.lower_fun(wide, multiple_results=False), platform=_platform
    )
