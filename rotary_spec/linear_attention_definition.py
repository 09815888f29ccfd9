"""Linear attention with rotary positions, as its definition reads: RoFormer Eq. 17 to 19.

The numerator's weights are products of rotated features; the denominator's are not rotated, so
that they stay positive. The definition costs time and memory quadratic in the length; for the
recurrent form see `linear_attention_step`, for the chunked one the backends.
"""

from __future__ import annotations

from rotary_spec._array import Array, move_axis, namespace_of, widest_float
from rotary_spec.arguments import position_array
from rotary_spec.attention_arguments import (
    causal_mask,
    check_lengths,
    order,
    sequence_last_but_one,
)
from rotary_spec.linear_attention_terms import (
    AnyFeatureMap,
    Denominator,
    attending,
    check_key_mask,
    check_options,
    divide,
    key_features,
    query_features,
    weighted_sums,
)
from rotary_spec.rotation import rotate
from rotary_spec.spec import RotarySpec


def linear_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array,
    spec: RotarySpec,
    *,
    feature_map: AnyFeatureMap = "elu+1",
    denominator: Denominator = "unrotated",
    causal: bool = False,
    key_positions: Array | None = None,
    key_mask: Array | None = None,
    eps: float = 0.0,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> Array:
    """Linear attention with RoPE, by its definition (RoFormer Eq. 19).

    ``out_m = sum_n (R_m phi(q_m)) . (R_n phi(k_n)) v_n / sum_n phi(q_m) . phi(k_n)``. The
    arithmetic is float64 where the namespace has it, else float32; the result is rounded once.

    Parameters
    ----------
    q : array, shape (..., heads, queries, head_dim)
        float16, bfloat16, float32 or float64.
    k : array, shape (..., key_heads, keys, head_dim)
        Of the dtype of ``q``. ``heads`` is a multiple of ``key_heads``: neighbouring query heads
        share a key head. Without an axis of heads, (seq, head_dim).
    v : array, shape (..., key_heads, keys, value_dim)
    positions : array of integers, int, or flat list or range of int
        Of the queries, as `rotate` takes them; and of the keys, if these have none of their own.
    spec : RotarySpec
        It rotates features: its ``head_dim`` is what the feature map gives, which for "elu+1" and
        "softmax" is the width of q and k. An attention factor A multiplies the rotated products
        by A squared: with the unrotated denominator the result too.
    feature_map : str, FeatureMap or pair of callables
        "elu+1", "softmax" (see `rotary_spec.feature_maps.FEATURE_MAPS`), `favor`, or functions of
        the queries and of the keys; they are given float32 or better.
    denominator : {"unrotated", "rotated", "none"}
        ``unrotated``: the paper's. ``rotated``: the sum of the numerator's own weights, which may
        vanish or be negative and is not checked; for comparison. ``none``: no division.
    causal : bool
        Attend to no later token; by index or position as in `attention`.
    key_positions : like ``positions``, or None
        Of the keys, where they are other tokens than the queries.
    key_mask : boolean array or None
        True for keys that count, False for padding (which may hold anything, NaN included);
        broadcasts to (..., key_heads, keys).
    eps : float
        Added to the denominator. 0, the definition, for features whose products are positive.
    seq_axis : int
        The sequence axis of q, k, v and of the result.
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    array of shape (..., heads, queries, value_dim), of the dtype of ``q``
        Zeros for a query that may attend to nothing.

    Raises
    ------
    DtypeError, ShapeError, PositionError, SpecError
        If an argument does not fit; nothing is computed then.
    DenominatorError
        If an unrotated denominator is not positive and finite; names the smallest. Values cannot
        be looked at, and so are not checked, in lazy arrays and while a function is traced
        (Dask, ``jax.jit``, ``torch.compile``).

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, linear_attention
    >>> q = k = np.zeros((2, 2))
    >>> v = np.asarray([[1.0], [2.0]])
    >>> linear_attention(q, k, v, [0, 1], RotarySpec(head_dim=2), causal=True).round(4)
    array([[1.    ],
           [1.2702]])
    """
    xp = namespace_of(q=q, k=k, v=v)
    options = check_options(spec, feature_map, denominator, eps, seq_len)
    dtype, wide = q.dtype, widest_float(xp, q)
    q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
    positions = position_array(positions, q, xp)
    if key_positions is not None:
        key_positions = position_array(key_positions, k, xp)
    check_lengths(q, k, positions, key_positions, spec)
    check_key_mask(key_mask, k)

    visible = None
    if causal:
        visible = causal_mask(*order(q, k, positions, key_positions, spec, xp))
    attends = attending(q, k, key_mask, visible, xp)
    q, k, v = (xp.astype(x, wide) for x in (q, k, v))
    phi_q = query_features(q, options)
    phi_k, v = key_features(k, v, key_mask, options, xp)
    rotated_q = rotate(phi_q, positions, spec, seq_len=seq_len)
    shared = positions if key_positions is None else key_positions
    rotated_k = rotate(phi_k, shared, spec, seq_len=seq_len)
    numerator, total = weighted_sums(
        (phi_q, rotated_q), (phi_k, rotated_k, v), visible, options, xp
    )
    out = divide(numerator, total, attends, options, xp)
    return move_axis(xp.astype(out, dtype), -2, axis, xp)
