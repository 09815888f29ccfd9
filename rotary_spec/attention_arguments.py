"""Checks and shapes that softmax and linear attention share, in the reference and the backends.

Inside, the sequence is always the last axis but one: (..., heads, seq, features).
"""

from __future__ import annotations

import math

from rotary_spec._array import Array, Namespace, device_of, dtype_name, move_axis
from rotary_spec.arguments import check_floating, check_positions, sequence_axis
from rotary_spec.errors import DtypeError, ShapeError
from rotary_spec.spec import RotarySpec


def sequence_last_but_one(
    q: Array, k: Array, v: Array, seq_axis: int, xp: Namespace
) -> tuple[Array, Array, Array, int]:
    """The checked q, k and v as (..., heads, seq, features), and ``seq_axis`` from the end.

    Raises
    ------
    DtypeError
        If one is not of a floating dtype, or their dtypes differ.
    ShapeError
        If the shapes do not fit each other, or the query heads are no multiple of the key heads.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_floating(x, name)
        if len(x.shape) < 2:
            raise ShapeError(
                f"{name} must have a sequence axis: (..., heads, seq, features), "
                f"got shape {tuple(x.shape)}"
            )
    if not dtype_name(q) == dtype_name(k) == dtype_name(v):
        raise DtypeError(
            f"q, k and v must be of one dtype, got {dtype_name(q)}, {dtype_name(k)} "
            f"and {dtype_name(v)}"
        )
    axis = sequence_axis(tuple(q.shape), seq_axis, "q")
    if not len(q.shape) == len(k.shape) == len(v.shape):
        raise ShapeError(f"q, k and v must have as many axes each, got {_shapes(q, k, v)}")
    q, k, v = (move_axis(x, axis, -2, xp) for x in (q, k, v))
    if k.shape[:-1] != v.shape[:-1]:
        raise ShapeError(
            f"k and v must agree in all axes but the last, got {tuple(k.shape)} and "
            f"{tuple(v.shape)} with the sequence last but one"
        )
    if q.shape[:-3] != k.shape[:-3]:
        raise ShapeError(
            f"q and k must agree in the axes before (heads, seq, features), got {_shapes(q, k)} "
            "with the sequence last but one"
        )
    group_size(q, k)
    return q, k, v, axis


def group_size(q: Array, k: Array) -> int:
    """How many query heads share a key head (grouped-query attention)."""
    if len(q.shape) == 2:
        return 1
    q_heads, k_heads = q.shape[-3], k.shape[-3]
    if q_heads == k_heads:
        return 1
    if not k_heads or q_heads % k_heads:
        raise ShapeError(
            f"the query heads must be a multiple of the key heads, got {q_heads} and {k_heads} "
            f"(shapes {_shapes(q, k)} with the sequence last but one)"
        )
    return int(q_heads // k_heads)


def _shapes(*arrays: Array) -> str:
    return " and ".join(str(tuple(x.shape)) for x in arrays)


def check_lengths(
    q: Array, k: Array, positions: Array, key_positions: Array | None, spec: RotarySpec
) -> None:
    """Check the positions of queries and keys, of shape (..., heads, seq, features).

    Raises
    ------
    ShapeError
        If the lengths differ and the keys have no positions of their own.
    PositionError
        If positions are not integers, or do not broadcast.
    """
    if key_positions is None and q.shape[-2] != k.shape[-2]:
        raise ShapeError(
            f"{q.shape[-2]} queries and {k.shape[-2]} keys cannot share positions. "
            "Hint: pass the keys' own as key_positions."
        )
    check_positions(positions, spec, (*q.shape[:-1], spec.head_dim), -2, "q")
    keys = positions if key_positions is None else key_positions
    check_positions(keys, spec, (*k.shape[:-1], spec.head_dim), -2, "k")


def check_mask(mask: Array, shape: tuple[int, ...], name: str) -> None:
    """Check that a mask is boolean and broadcasts to ``shape``.

    Raises
    ------
    DtypeError
        If it is not boolean: an additive mask would be read as its opposite.
    ShapeError
        If it does not broadcast.
    """
    if dtype_name(mask).removesuffix("_") != "bool":
        raise DtypeError(
            f"{name} must be boolean, True where a key may be attended to; got {dtype_name(mask)}"
        )
    given = tuple(mask.shape)
    if len(given) > len(shape) or any(
        m not in (1, n) for m, n in zip(reversed(given), reversed(shape), strict=False)
    ):
        raise ShapeError(f"{name} must broadcast to {shape}, got shape {given}")


def default_scale(scale: float | None, head_dim: int) -> float:
    """``scale``, or 1 / sqrt(head_dim) for None."""
    if scale is None:
        return 1.0 / math.sqrt(head_dim)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise DtypeError(f"scale must be a finite number, got {scale!r}")
    return float(scale)


def has_axes(spec: RotarySpec) -> bool:
    """Whether positions have several coordinates, and so no order."""
    return spec.sections is not None


def order(
    q: Array,
    k: Array,
    positions: Array,
    key_positions: Array | None,
    spec: RotarySpec,
    xp: Namespace,
) -> tuple[Array, Array]:
    """What decides which tokens are later, for queries and keys, (..., seq) each.

    Their positions, where the keys have their own; else their indices, which end together.
    """
    if key_positions is not None and not has_axes(spec):
        positions, key_positions = (
            x if x.shape else xp.reshape(x, (1,)) for x in (positions, key_positions)
        )
        if len(key_positions.shape) > 1 and key_positions.shape[-2] != 1:
            key_positions = repeat_heads(key_positions, group_size(q, k), -2, xp)
        return positions, key_positions
    rows, columns, device = q.shape[-2], k.shape[-2], device_of(q)
    return (
        xp.arange(columns - rows, columns, device=device),
        xp.arange(columns, device=device),
    )


def causal_mask(query_order: Array, key_order: Array) -> Array:
    """Which keys a query may attend to, broadcasting against (..., heads, queries, keys)."""
    return query_order[..., :, None] >= key_order[..., None, :]


def repeat_heads(x: Array, times: int, axis: int, xp: Namespace) -> Array:
    """``x`` with each entry of ``axis``, counted from the end, ``times`` times in a row."""
    if times == 1:
        return x
    axis += len(x.shape)
    before, heads, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    spread = xp.broadcast_to(xp.expand_dims(x, axis=axis + 1), (*before, heads, times, *after))
    return xp.reshape(spread, (*before, heads * times, *after))
