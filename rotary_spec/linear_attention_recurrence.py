"""Linear attention token by token: an explicit state that stands for all the keys seen so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rotary_spec._array import (
    Array,
    Namespace,
    device_of,
    has_dtype,
    holds,
    move_axis,
    namespace_of,
    widest_float,
)
from rotary_spec.arguments import position_array
from rotary_spec.attention_arguments import (
    causal_mask,
    check_lengths,
    group_size,
    has_axes,
    order,
    repeat_heads,
    sequence_last_but_one,
)
from rotary_spec.errors import DtypeError, PositionError, ShapeError, SpecError
from rotary_spec.linear_attention_terms import (
    AnyFeatureMap,
    Denominator,
    LinearAttentionOptions,
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


@dataclass(frozen=True)
class LinearAttentionState:
    """What causal linear attention remembers of the keys and values it has seen.

    Attributes
    ----------
    numerator : array, shape (..., key_heads, features, value_dim)
        S = sum_n (R_n phi(k_n)) v_n^T: rotated, in absolute positions.
    normaliser : array, shape (..., key_heads, features)
        z = sum_n phi(k_n): not rotated, unless the denominator is the "rotated" one.
    seen : boolean array, shape (..., key_heads)
        Whether any key has counted so far.
    position : array of integers or None
        The last position, of the shape of the positions without the sequence; -1 before the
        first token. None where positions have several axes.
    options : LinearAttentionOptions
        spec, feature_map, denominator, eps and seq_len, the same for all steps.
    """

    numerator: Array
    normaliser: Array
    seen: Array
    position: Array | None
    options: LinearAttentionOptions


def linear_attention_state(
    k: Array,
    v: Array,
    positions: Array,
    spec: RotarySpec,
    *,
    feature_map: AnyFeatureMap = "elu+1",
    denominator: Denominator = "unrotated",
    key_mask: Array | None = None,
    eps: float = 0.0,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> LinearAttentionState:
    """The state after these keys and values: what `linear_attention_step` goes on from.

    Parameters
    ----------
    k : array, shape (..., key_heads, keys, head_dim)
        A prefix of any length, 0 included.
    v : array, shape (..., key_heads, keys, value_dim)
    positions : array of integers, int, or flat list or range of int
        Of the keys; they must not go backwards.
    spec, feature_map, denominator, key_mask, eps, seq_axis, seq_len
        As for `linear_attention`. The state keeps ``seq_len``: a schedule that depends on the
        length stands still while it decodes.

    Returns
    -------
    LinearAttentionState
        In float64 where the namespace has it, else float32.

    Raises
    ------
    DtypeError, ShapeError, PositionError, SpecError
        If an argument does not fit; nothing is computed then.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, linear_attention_state
    >>> state = linear_attention_state(np.zeros((3, 4)), np.ones((3, 2)), range(3), RotarySpec(4))
    >>> state.numerator.shape, state.normaliser, state.position
    ((4, 2), array([3., 3., 3., 3.]), array(2))
    """
    xp = namespace_of(k=k, v=v)
    options = check_options(spec, feature_map, denominator, eps, seq_len)
    wide = widest_float(xp, k)
    k, k, v, _ = sequence_last_but_one(k, k, v, seq_axis, xp)
    positions = position_array(positions, k, xp)
    check_lengths(k, k, positions, None, spec)
    check_key_mask(key_mask, k)
    check_onwards(positions, None, spec, xp)
    phi_k, wide_v = key_features(xp.astype(k, wide), xp.astype(v, wide), key_mask, options, xp)
    rotated_k = rotate(phi_k, positions, spec, seq_len=seq_len)
    numerator, normaliser = key_sums(phi_k, rotated_k, wide_v, options, xp)
    return LinearAttentionState(
        numerator,
        normaliser,
        seen_after(None, k, key_mask, xp),
        last_position(None, positions, k, spec, xp),
        options,
    )


def linear_attention_step(
    state: LinearAttentionState,
    q: Array,
    k: Array,
    v: Array,
    *,
    positions: Array | None = None,
    key_mask: Array | None = None,
    spec: RotarySpec | None = None,
    seq_axis: int = -2,
) -> tuple[LinearAttentionState, Array]:
    """Causal linear attention of the next tokens, by the state: RoFormer Eq. 19 as a recurrence.

    ``S += (R_m phi(k_m)) v_m^T; z += phi(k_m); out_m = (R_m phi(q_m)) . S / phi(q_m) . z``. A
    prefix and then steps, of any lengths, give what `linear_attention` with ``causal=True`` gives
    for the whole.

    Parameters
    ----------
    state : LinearAttentionState
        From `linear_attention_state` or the step before; it is left as it is.
    q : array, shape (..., heads, tokens, head_dim)
        The next tokens: usually one.
    k : array, shape (..., key_heads, tokens, head_dim)
    v : array, shape (..., key_heads, tokens, value_dim)
    positions : array of integers, int, or flat list or range of int, or None
        None goes on from ``state.position``. They must not go backwards; with several axes they
        are needed, and have no order to check.
    key_mask : boolean array or None
        As for `linear_attention`.
    spec : RotarySpec or None
        What the caller takes the state's spec to be; an error where it is another.
    seq_axis : int
        The sequence axis of q, k, v and of the result.

    Returns
    -------
    state : LinearAttentionState
    out : array of shape (..., heads, tokens, value_dim), of the dtype of ``q``

    Raises
    ------
    DtypeError, ShapeError, SpecError
        If an argument does not fit, or the state is of another spec, framework or shape.
    PositionError
        If positions go backwards, as far as values can be seen (see `linear_attention`).
    DenominatorError
        As for `linear_attention`.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, linear_attention_state, linear_attention_step
    >>> spec = RotarySpec(head_dim=2)
    >>> state = linear_attention_state(np.zeros((1, 2)), np.asarray([[1.0]]), [0], spec)
    >>> state, out = linear_attention_step(
    ...     state, np.zeros((1, 2)), np.zeros((1, 2)), np.asarray([[2.0]]))
    >>> out.round(4), state.position
    (array([[1.2702]]), array(1))
    """
    xp = namespace_of(q=q, k=k, v=v)
    dtype = q.dtype
    q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
    options = check_state(state, k, v, spec)
    positions = step_positions(state, positions, k, xp)
    check_lengths(q, k, positions, None, options.spec)
    check_key_mask(key_mask, k)
    check_onwards(positions, state.position, options.spec, xp)

    visible = causal_mask(*order(q, k, positions, None, options.spec, xp))
    attends = attending(q, k, key_mask, visible, xp)
    if attends is not None:
        times = group_size(q, k)
        attends = attends | repeat_heads(state.seen, times, -1, xp)[..., None]
    q, k, v = (xp.astype(x, state.numerator.dtype) for x in (q, k, v))
    phi_q = query_features(q, options)
    phi_k, v = key_features(k, v, key_mask, options, xp)
    queries, keys = (
        (phi, rotate(phi, positions, options.spec, seq_len=options.seq_len))
        for phi in (phi_q, phi_k)
    )
    now = weighted_sums(queries, (*keys, v), visible, options, xp)
    before = _sums_before(state, *queries, group_size(q, k), xp)
    out = divide(before[0] + now[0], before[1] + now[1], attends, options, xp)
    numerator, normaliser = key_sums(*keys, v, options, xp)
    after = replace(
        state,
        numerator=state.numerator + numerator,
        normaliser=state.normaliser + normaliser,
        seen=seen_after(state.seen, k, key_mask, xp),
        position=last_position(state.position, positions, k, options.spec, xp),
    )
    return after, move_axis(xp.astype(out, dtype), -2, axis, xp)


def key_sums(
    phi: Array, rotated: Array, v: Array, options: LinearAttentionOptions, xp: Namespace
) -> tuple[Array, Array]:
    """S and z of some keys alone."""
    counted = rotated if options.denominator == "rotated" else phi
    return xp.matrix_transpose(rotated) @ v, xp.sum(counted, axis=-2)


def _sums_before(
    state: LinearAttentionState, phi: Array, rotated: Array, times: int, xp: Namespace
) -> tuple[Array, Array]:
    """The share of the earlier keys in numerator and denominator."""
    counted = rotated if state.options.denominator == "rotated" else phi
    numerator = repeat_heads(state.numerator, times, -3, xp)
    normaliser = repeat_heads(state.normaliser, times, -2, xp)
    return rotated @ numerator, (counted @ normaliser[..., None])[..., 0]


def seen_after(seen: Array | None, k: Array, key_mask: Array | None, xp: Namespace) -> Array:
    """Whether any key has counted once these have been seen."""
    shape, device = tuple(k.shape[:-2]), device_of(k)
    if key_mask is None:
        now = xp.full(shape, k.shape[-2] > 0, dtype=xp.bool, device=device)
    else:
        now = xp.any(xp.broadcast_to(key_mask, tuple(k.shape[:-1])), axis=-1)
    return now if seen is None else seen | now


def last_position(
    before: Array | None, positions: Array, k: Array, spec: RotarySpec, xp: Namespace
) -> Array | None:
    """The position of the last of these keys; of those before where there are none."""
    if has_axes(spec):
        return None
    dtype = xp.int64 if has_dtype(xp, "int64", k) else xp.int32
    if k.shape[-2]:
        return xp.astype(positions[..., -1] if positions.shape else positions, dtype)
    if before is not None:
        return before
    return xp.full(tuple(positions.shape[:-1]), -1, dtype=dtype, device=device_of(k))


def step_positions(
    state: LinearAttentionState, positions: Array | None, k: Array, xp: Namespace
) -> Array:
    """The positions of the next tokens: as given, or those that follow the state's."""
    if positions is not None:
        return position_array(positions, k, xp)
    if state.position is None:
        raise PositionError(
            "positions must be given: the state's spec has several axes, and what follows a "
            "position there is not known"
        )
    steps = xp.arange(1, k.shape[-2] + 1, dtype=state.position.dtype, device=device_of(k))
    return state.position[..., None] + steps


def check_onwards(positions: Array, before: Array | None, spec: RotarySpec, xp: Namespace) -> None:
    """Raise `PositionError` where positions go backwards, as far as values can be seen.

    ``before`` is the position of the token before the first, if there was one.
    """
    if has_axes(spec) or 0 in positions.shape:
        return
    if not positions.shape:
        positions = xp.reshape(positions, (1,))
    if not holds(xp.all(positions[..., 1:] >= positions[..., :-1]), xp):
        raise PositionError(f"positions must not go backwards in a causal state, got {positions}")
    if before is not None and not holds(xp.all(positions[..., 0] >= before), xp):
        raise PositionError(
            f"positions must not go backwards: the state stands at {before}, "
            f"the next token at {positions[..., 0]}"
        )


def check_state(
    state: LinearAttentionState, k: Array, v: Array, spec: RotarySpec | None
) -> LinearAttentionOptions:
    """Check a state against the next keys and values, (..., key_heads, seq, features)."""
    if not isinstance(state, LinearAttentionState):
        raise DtypeError(
            f"state must be a LinearAttentionState, as linear_attention_state gives it; got "
            f"{type(state).__name__}"
        )
    if spec is not None and spec != state.options.spec:
        raise SpecError(f"the state is of another spec, {state.options.spec!r}, not {spec!r}")
    namespace_of(state=state.numerator, k=k)
    expected = (*k.shape[:-2], state.options.spec.head_dim, v.shape[-1])
    if tuple(state.numerator.shape) != expected:
        raise ShapeError(
            f"the state is of other heads or widths: its numerator has shape "
            f"{tuple(state.numerator.shape)}, these keys and values need {expected}"
        )
    return state.options
