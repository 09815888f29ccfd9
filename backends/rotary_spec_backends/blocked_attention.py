"""Softmax attention in blocks of queries: no square of scores, in any array namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rotary_spec._array import device_of
from rotary_spec.attention_arguments import causal_mask, group_size, order
from rotary_spec.softmax_attention import masked_softmax
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.frameworks import Array

_BLOCK = 256  # queries whose scores are held at once


class SoftmaxOptions(NamedTuple):
    """Which softmax attention: everything that is not an array. Hashable."""

    spec: RotarySpec
    causal: bool
    scale: float
    seq_len: int | None


def blocked_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array,
    key_positions: Array | None,
    mask: Array | None,
    options: SoftmaxOptions,
    turn: Callable[[Array, Array], Array],
    xp: Any,
) -> Array:
    """Attention on checked arguments (..., heads, seq, features), in float32 or better.

    ``turn`` rotates an array by positions.
    """
    dtype, work = q.dtype, xp.float64 if q.dtype == xp.float64 else xp.float32
    out = xp.empty((*q.shape[:-1], v.shape[-1]), dtype=dtype, device=device_of(q))
    if not k.shape[-2]:
        return xp.zeros_like(out)
    later = order(q, k, positions, key_positions, options.spec, xp)
    grouped = (*k.shape[:-2], group_size(q, k))
    q, k, v = (xp.astype(x, work, copy=False) for x in (q, k, v))
    q = turn(q, positions) * options.scale
    k = turn(k, positions if key_positions is None else key_positions)
    keys, values = xp.matrix_transpose(k)[..., None, :, :], v[..., None, :, :]
    for start in range(0, q.shape[-2], _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = q[..., rows, :]
        scores = xp.reshape(block, (*grouped, *block.shape[-2:])) @ keys
        scores = xp.reshape(scores, (*block.shape[:-1], k.shape[-2]))
        visible = causal_mask(later[0][..., rows], later[1]) if options.causal else None
        if mask is not None:
            allowed = mask[..., rows, :] if len(mask.shape) > 1 and mask.shape[-2] > 1 else mask
            visible = allowed if visible is None else visible & allowed
        weights = masked_softmax(scores, visible, xp)
        weights = xp.reshape(weights, (*grouped, *weights.shape[-2:])) @ values
        out[..., rows, :] = xp.reshape(weights, (*block.shape[:-1], v.shape[-1]))
    return out
