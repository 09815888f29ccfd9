"""What JAX has of its own for attention: the fused kernel, and `lax.scan` under `jax.jit`."""

from __future__ import annotations

from functools import cache
from typing import Any

import rotary_spec
from rotary_spec import LinearAttentionState
from rotary_spec.attention_arguments import causal_mask, order
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec_backends.blocked_attention import SoftmaxOptions
from rotary_spec_backends.chunked import Step, Tokens, Tools, is_long, least
from rotary_spec_backends.frameworks import Array
from rotary_spec_backends.kernels.jax_rotation import rotate_all


@cache
def jitted() -> Any:
    """``jitted()(form, options, chunk, *arrays)``: a form of `chunked`, compiled."""
    import jax

    return jax.jit(_run, static_argnums=(0, 1, 2))


def _run(form: Any, options: LinearAttentionOptions, chunk: int, *arrays: Any) -> Any:
    import jax
    import jax.numpy as jnp

    with jax.default_matmul_precision("highest"):  # float32 is not to be TensorFloat-32
        return form(Tools(jnp, _turn, scan, 1, jnp.tril), options, chunk, *arrays)


def _turn(
    arrays: tuple[Array, ...], positions: Array, options: LinearAttentionOptions
) -> tuple[Array, ...]:
    axes = (-2,) * len(arrays)
    turned: tuple[Array, ...] = rotate_all(arrays, positions, options.spec, axes, options.seq_len)
    return turned


def scan(
    step: Step, carry: Any, tokens: Tokens, sizes: list[int], xp: Any
) -> tuple[Any, Array | None, Array | None]:
    """`chunked.Tools.scan`: one `lax.scan` over the parts of equal size, and the rest after it."""
    import jax

    step = jax.checkpoint(step)
    size, equal = sizes[0], sizes.count(sizes[0])
    outs, lows = [], []
    if equal > 1:
        whole = tokens.part(0, size * equal)

        def body(carry: Any, stacked: tuple[Any, Any]) -> Any:
            features, long_rows = stacked
            taken = iter(long_rows)
            rows = tuple(next(taken) if is_long(row) else row for row in tokens.rows)
            carry, out, low = step(carry, Tokens(features, rows))
            return carry, (out, low)

        features = tuple(
            xp.moveaxis(xp.reshape(x, (*x.shape[:-2], equal, size, x.shape[-1])), -3, 0)
            for x in whole.features
        )
        long_rows = tuple(
            xp.moveaxis(xp.reshape(row, (*row.shape[:-1], equal, size)), -2, 0)
            for row in whole.rows
            if row is not None and is_long(row)
        )
        carry, (out, low) = jax.lax.scan(body, carry, (features, long_rows))
        if out is not None:
            out = xp.moveaxis(out, 0, -3)
            outs.append(xp.reshape(out, (*out.shape[:-3], equal * size, out.shape[-1])))
        lows.append(None if low is None else xp.min(low))
        sizes, start = sizes[equal:], equal * size
    else:
        start = 0
    for size in sizes:
        carry, out, low = step(carry, tokens.part(start, start + size))
        outs.append(out)
        lows.append(low)
        start += size
    joined = None if not outs or outs[0] is None else xp.concat(outs, axis=-2)
    return carry, joined, least(lows, xp)


@cache
def jitted_softmax() -> Any:
    """``jitted_softmax()(q, k, v, positions, key_positions, mask, options)``."""
    import jax

    return jax.jit(_fused_attention, static_argnums=6)


def _fused_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array,
    key_positions: Array | None,
    mask: Array | None,
    options: SoftmaxOptions,
) -> Array:
    """`jax.nn.dot_product_attention` of rotated q and k.

    It computes the softmax in float32 whatever it is given, takes values as wide as keys, and
    gives a query without keys their mean: float64, other widths and no keys go to the reference.
    """
    import jax
    import jax.numpy as jnp

    spec, causal, scale, seq_len = options
    if q.dtype == jnp.float64 or k.shape[-1] != v.shape[-1] or not k.shape[-2] or q.ndim > 4:
        with jax.default_matmul_precision("highest"):
            return rotary_spec.attention(
                q,
                k,
                v,
                positions,
                spec,
                key_positions=key_positions,
                causal=causal,
                mask=mask,
                scale=scale,
                seq_len=seq_len,
            )
    visible = mask
    if causal and not (key_positions is None and mask is None):
        visible = causal_mask(*order(q, k, positions, key_positions, spec, jnp))
        visible = visible if mask is None else visible & mask
    keys = positions if key_positions is None else key_positions
    (turned_q,) = rotate_all((q,), positions, spec, (-2,), seq_len)
    (turned_k,) = rotate_all((k,), keys, spec, (-2,), seq_len)
    # It takes (batch, seq, heads, features), and masks of four axes. Its float16 products are
    # not there on every platform.
    shape = (*q.shape[:-1], v.shape[-1])
    dtype = jnp.float32 if q.dtype == jnp.float16 else q.dtype
    full = tuple(
        x.astype(dtype).reshape((1,) * (4 - x.ndim) + x.shape) for x in (turned_q, turned_k, v)
    )
    out = jax.nn.dot_product_attention(
        *(jnp.swapaxes(x, 1, 2) for x in full),
        mask=None
        if visible is None
        else visible.reshape((1,) * (4 - visible.ndim) + visible.shape),
        scale=scale,
        is_causal=causal and visible is None,
    )
    out = jnp.swapaxes(out, 1, 2).reshape(shape).astype(q.dtype)
    if visible is not None:
        out = jnp.where(jnp.any(visible, axis=-1, keepdims=True), out, 0)
    return out


@cache
def register_state() -> None:
    """Let a `LinearAttentionState` pass through JAX's transformations."""
    import jax

    arrays = ["numerator", "normaliser", "seen", "position"]
    jax.tree_util.register_dataclass(LinearAttentionState, arrays, ["options"])
