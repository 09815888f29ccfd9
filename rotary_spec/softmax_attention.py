"""Softmax attention with rotary positions: RoFormer Eq. 2 with 14."""

from __future__ import annotations

import math

from rotary_spec._array import Array, Namespace, move_axis, namespace_of, widest_float
from rotary_spec.arguments import check_features, check_spec, position_array
from rotary_spec.attention_arguments import (
    causal_mask,
    check_lengths,
    check_mask,
    default_scale,
    group_size,
    order,
    repeat_heads,
    sequence_last_but_one,
)
from rotary_spec.rotation import rotate
from rotary_spec.spec import RotarySpec


def attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array,
    spec: RotarySpec,
    *,
    key_positions: Array | None = None,
    causal: bool = False,
    mask: Array | None = None,
    scale: float | None = None,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> Array:
    """Softmax attention on rotated queries and keys (RoFormer Eq. 2 with 14).

    ``out_m = sum_n softmax_n(scale (R_m q_m) . (R_n k_n)) v_n``. The arithmetic is float64 where
    the namespace has it, else float32; the result is rounded once.

    Parameters
    ----------
    q : array, shape (..., heads, queries, head_dim)
        Not yet rotated. float16, bfloat16, float32 or float64.
    k : array, shape (..., key_heads, keys, head_dim)
        Of the dtype of ``q``. ``heads`` is a multiple of ``key_heads``: neighbouring query heads
        share a key head (grouped-query attention). Without an axis of heads, (seq, head_dim).
    v : array, shape (..., key_heads, keys, value_dim)
    positions : array of integers, int, or flat list or range of int
        Of the queries, as `rotate` takes them; and of the keys, if these have none of their own.
    spec : RotarySpec
        Its attention factor A is applied to q and to k: scores carry A squared.
    key_positions : like ``positions``, or None
        Of the keys, where they are other tokens than the queries (decoding with a cache).
    causal : bool
        Attend to no later token. By index where q and k share their positions; by position,
        n <= m, where the keys have their own. If positions have several axes, which have no
        order, by index, the last query beside the last key.
    mask : boolean array or None
        True where a query may attend to a key; broadcasts to (..., heads, queries, keys).
    scale : float or None
        None is 1 / sqrt(head_dim).
    seq_axis : int
        The sequence axis of q, k, v and of the result: -2, or for instance 1 for
        (batch, seq, heads, head_dim).
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    array of shape (..., heads, queries, value_dim), of the dtype of ``q``
        Zeros for a query that may attend to nothing.

    Raises
    ------
    DtypeError, ShapeError, PositionError
        If an argument does not fit; nothing is computed then.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, attention
    >>> q = k = np.asarray([[1.0, 0.0], [1.0, 0.0]])
    >>> v = np.asarray([[1.0], [2.0]])
    >>> attention(q, k, v, [0, 1], RotarySpec(head_dim=2), causal=True).round(4)
    array([[1.    ],
           [1.5806]])
    """
    check_spec(spec)
    xp = namespace_of(q=q, k=k, v=v)
    dtype, wide = q.dtype, widest_float(xp, q)
    q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
    check_features(q, spec, name="q")
    check_features(k, spec, name="k")
    positions = position_array(positions, q, xp)
    if key_positions is not None:
        key_positions = position_array(key_positions, k, xp)
    check_lengths(q, k, positions, key_positions, spec)
    if mask is not None:
        namespace_of(q=q, mask=mask)
        check_mask(mask, (*q.shape[:-1], k.shape[-2]), "mask")
    scale = default_scale(scale, spec.head_dim)

    visible = None
    if causal:
        visible = causal_mask(*order(q, k, positions, key_positions, spec, xp))
    if mask is not None:
        visible = mask if visible is None else visible & mask
    times = group_size(q, k)
    q, k, v = (xp.astype(x, wide) for x in (q, k, v))
    rotated_q = rotate(q, positions, spec, seq_len=seq_len)
    rotated_k = rotate(
        k, positions if key_positions is None else key_positions, spec, seq_len=seq_len
    )
    keys, values = (repeat_heads(x, times, -3, xp) for x in (rotated_k, v))
    scores = scale * (rotated_q @ xp.matrix_transpose(keys))
    weights = masked_softmax(scores, visible, xp) if k.shape[-2] else scores  # no keys, no maximum
    out = weights @ values
    return move_axis(xp.astype(out, dtype), -2, axis, xp)


def masked_softmax(scores: Array, visible: Array | None, xp: Namespace) -> Array:
    """Softmax over the last axis where ``visible``; zeros where nothing is."""
    if visible is not None:
        scores = xp.where(visible, scores, xp.full_like(scores, -math.inf))
    largest = xp.max(scores, axis=-1, keepdims=True)
    largest = xp.where(largest == -math.inf, xp.zeros_like(largest), largest)
    weights = xp.exp(scores - largest)
    total = xp.sum(weights, axis=-1, keepdims=True)
    return weights / xp.where(total == 0, xp.ones_like(total), total)
