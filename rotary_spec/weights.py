"""Query and key weights from one rotary layout to another.

A layout is an order of the lanes of every head. Weights whose rows produce q and k carry that
order, so a model moves from one rotation code to another by moving rows: no value changes, and no
attention score does. Values and the output projection know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from rotary_spec._array import Array, device_of, has_dtype, namespace_of
from rotary_spec.errors import ShapeError, SpecError
from rotary_spec.layouts import lane_permutation
from rotary_spec.spec import LAYOUTS, Layout, RotarySpec, integer

Packing = Literal["concatenated", "per-head", "per-group"]
PACKINGS: tuple[Packing, ...] = ("concatenated", "per-head", "per-group")


def convert_projection(
    weight: Array,
    *,
    from_layout: Layout | None = None,
    to_layout: Layout | None = None,
    permutation: Sequence[int] | None = None,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
    axis: int = 0,
    packing: Packing | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
) -> Array:
    """The weights that give q or k in another rotary layout.

    Parameters
    ----------
    weight : array, shape (heads * head_dim, hidden)
        Projection weight of q or of k, of any dtype and of any Array API namespace. A bias
        (heads * head_dim,) and a norm weight (head_dim,) that acts on q or k are converted alike.
    from_layout, to_layout : {"interleaved", "half"}
        The layouts that the old and the new rotation code read.
    permutation : sequence of head_dim int, or None
        In place of the two layouts, any order of lanes: ``q_new = q_old[..., permutation]``.
    head_dim : int
    rotary_dim : int or None
        How many lanes are rotated; None means all. The rows of the others stay where they are.
    rotary_start : int
        First rotated lane.
    axis : int
        The axis of length heads * head_dim: 0, or 1 for storage as (hidden, heads * head_dim).
    packing : {"concatenated", "per-head", "per-group"} or None
        None: all heads are q, or all are k. Otherwise q, k and v are fused along ``axis``, and
        the rows of v stay where they are:

        ``concatenated``
            heads of q, then kv_heads of k, then kv_heads of v (Phi-3, ChatGLM, DBRX).
        ``per-head``
            q, k, v of the first head, q, k, v of the second, ... (GPT-NeoX, Persimmon).
        ``per-group``
            for each head of k: its heads of q, then k, then v (Falcon, InternLM2, Megatron).
    heads, kv_heads : int or None
        Heads of q, and of k and v (None: as many). Needed for ``concatenated`` and ``per-group``;
        elsewhere they are inferred, and held against the shape where they are given.

    Returns
    -------
    array of the shape, dtype and device of ``weight``
        Its values moved bit for bit.

    Raises
    ------
    ShapeError
        If the shape does not fit head_dim and the numbers of heads.
    SpecError
        If a layout or packing is unknown, or ``permutation`` is not one of head_dim lanes.
    DtypeError
        If ``weight`` is not an array.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import convert_projection
    >>> bias = np.asarray([0, 1, 2, 3, 10, 11, 12, 13])  # two heads of four lanes
    >>> convert_projection(bias, from_layout="half", to_layout="interleaved", head_dim=4)
    array([ 0,  2,  1,  3, 10, 12, 11, 13])
    """
    xp = namespace_of(weight=weight)
    order = lane_order(from_layout, to_layout, permutation, head_dim, rotary_dim, rotary_start)
    shape = tuple(weight.shape)
    axis = checked_axis(shape, axis, "weight")
    rotating = rotating_heads(shape[axis], len(order), packing, heads, kv_heads, "weight")
    rows = [
        head * len(order) + lane
        for head, rotates in enumerate(rotating)
        for lane in (order if rotates else range(len(order)))
    ]
    dtype = xp.int64 if has_dtype(xp, "int64", weight) else xp.int32
    return xp.take(weight, xp.asarray(rows, dtype=dtype, device=device_of(weight)), axis=axis)


def lane_order(
    from_layout: Layout | None,
    to_layout: Layout | None,
    permutation: Sequence[int] | None,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
) -> tuple[int, ...]:
    """The permutation of a head's lanes that two layouts, or the caller, ask for.

    >>> from rotary_spec.weights import lane_order
    >>> lane_order("interleaved", "half", None, head_dim=6)
    (0, 2, 4, 1, 3, 5)
    """
    if permutation is not None:
        if (from_layout, to_layout, rotary_dim, rotary_start) != (None, None, None, 0):
            raise SpecError(
                "permutation takes the place of from_layout, to_layout, rotary_dim and "
                "rotary_start: give it or them"
            )
        return _checked_permutation(permutation, integer("head_dim", head_dim))
    for name, layout in (("from_layout", from_layout), ("to_layout", to_layout)):
        if layout not in LAYOUTS:
            raise SpecError(
                f"{name} must be 'interleaved' (pairs 2i, 2i+1) or 'half' (pairs i, i + d/2), "
                f"got {layout!r}. Hint: any other order of lanes goes in as permutation."
            )
    old, new = (
        RotarySpec(
            head_dim,
            layout=cast(Layout, layout),
            rotary_dim=cast(int, rotary_dim),  # None becomes head_dim
            rotary_start=rotary_start,
        )
        for layout in (from_layout, to_layout)
    )
    return lane_permutation(old, new)


def rotating_heads(
    size: int,
    head_dim: int,
    packing: Packing | None,
    heads: int | None,
    kv_heads: int | None,
    name: str,
) -> tuple[bool, ...]:
    """For every run of head_dim rows whether it is of q or k, as opposed to v.

    >>> from rotary_spec.weights import rotating_heads
    >>> rotating_heads(32, 8, "concatenated", 2, 1, "wqkv")
    (True, True, True, False)
    """
    heads, kv_heads = _counts(heads, kv_heads)
    count = size // head_dim
    if size % head_dim or not count:
        raise ShapeError(
            f"{name}: expected a multiple of head_dim = {head_dim} rows, got {size}. "
            "Hint: axis names the axis of length heads * head_dim."
        )
    if packing is None:
        if heads is not None and count not in (heads, kv_heads, 1):
            raise ShapeError(
                f"{name}: expected {heads} heads of q or {kv_heads} of k, got {size} rows, which "
                f"are {count} heads of head_dim = {head_dim}"
            )
        return (True,) * count
    if packing not in PACKINGS:
        raise SpecError(
            f"packing must be {', '.join(map(repr, PACKINGS))} or None, got {packing!r}"
        )
    if packing == "per-head":
        if heads is None and count % 3:
            raise ShapeError(
                f"{name}: packing 'per-head' has q, k and v for every head, a multiple of "
                f"{3 * head_dim} rows; got {size}"
            )
        heads = count // 3 if heads is None else heads
        if kv_heads not in (None, heads):
            raise SpecError(
                f"packing 'per-head' has as many heads of k and v as of q, got heads = {heads} and "
                f"kv_heads = {kv_heads}. Hint: 'per-group' has fewer."
            )
        kv_heads = heads
    if heads is None or kv_heads is None:
        raise SpecError(
            f"packing {packing!r} needs heads and kv_heads: the shape does not tell q from k and v"
        )
    if count != heads + 2 * kv_heads:
        raise ShapeError(
            f"{name}: packing {packing!r} with {heads} heads of q and {kv_heads} of k and v, of "
            f"head_dim = {head_dim}, has {(heads + 2 * kv_heads) * head_dim} rows; got {size}"
        )
    if packing == "concatenated":
        return (True,) * (heads + kv_heads) + (False,) * kv_heads
    return ((True,) * (heads // kv_heads + 1) + (False,)) * kv_heads


def checked_axis(shape: tuple[int, ...], axis: int, name: str) -> int:
    """``axis`` counted from 0, or a `ShapeError` that says which axes there are."""
    number = integer("axis", axis)
    if not -len(shape) <= number < len(shape):
        raise ShapeError(
            f"{name}: axis must name one of its {len(shape)} axes, got {axis} for shape {shape}. "
            "Hint: -1 is the last axis of weights and biases alike."
        )
    return number % len(shape)


def _counts(heads: int | None, kv_heads: int | None) -> tuple[int | None, int | None]:
    if heads is None:
        if kv_heads is not None:
            raise SpecError(f"kv_heads needs heads beside it, got kv_heads = {kv_heads} alone")
        return None, None
    heads = integer("heads", heads)
    kv_heads = heads if kv_heads is None else integer("kv_heads", kv_heads)
    if heads <= 0 or kv_heads <= 0 or heads % kv_heads:
        raise SpecError(
            f"heads must be a positive multiple of kv_heads, got heads = {heads} and "
            f"kv_heads = {kv_heads}"
        )
    return heads, kv_heads


def _checked_permutation(permutation: Sequence[int], head_dim: int) -> tuple[int, ...]:
    try:
        order = tuple(integer("permutation", lane) for lane in permutation)
    except TypeError:
        raise SpecError(
            f"permutation must be a sequence of lane numbers, got {permutation!r}"
        ) from None
    if sorted(order) != list(range(head_dim)) or not order:
        wrong = f"{len(order)} numbers" if len(order) != head_dim else f"{permutation!r}"
        raise SpecError(
            f"permutation must hold every lane 0 .. head_dim - 1 = {head_dim - 1} once, got {wrong}"
        )
    return order
