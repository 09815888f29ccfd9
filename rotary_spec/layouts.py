"""Layouts: which lanes of the head dimension form a pair.

``interleaved`` pairs neighbours (2i, 2i+1), as the paper does; ``half`` pairs (i, i + d/2). They
are the same rotation after a permutation of the lanes.
"""

from __future__ import annotations

from rotary_spec._array import Array, Namespace
from rotary_spec.arguments import check_spec
from rotary_spec.errors import SpecError
from rotary_spec.spec import Layout, RotarySpec


def pair_lanes(
    layout: Layout, rotary_dim: int, rotary_start: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lanes that hold the first and the second member of every pair, in pair order.

    >>> from rotary_spec.layouts import pair_lanes
    >>> pair_lanes("interleaved", 6)
    ((0, 2, 4), (1, 3, 5))
    >>> pair_lanes("half", 6)
    ((0, 1, 2), (3, 4, 5))
    """
    stop = rotary_start + rotary_dim
    middle = rotary_start + rotary_dim // 2
    if layout == "interleaved":
        return tuple(range(rotary_start, stop, 2)), tuple(range(rotary_start + 1, stop, 2))
    return tuple(range(rotary_start, middle)), tuple(range(middle, stop))


def rotated_lanes(spec: RotarySpec) -> slice:
    """The slice of the last axis that the spec rotates."""
    return slice(spec.rotary_start, spec.rotary_start + spec.rotary_dim)


def input_lanes(spec: RotarySpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the spec finds its pairs: lanes of the first and of the second members."""
    return _lanes(spec, spec.layout)


def output_lanes(spec: RotarySpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the spec puts its rotated pairs."""
    return _lanes(spec, spec.output_layout or spec.layout)


def _lanes(spec: RotarySpec, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    blocks = [pair_lanes(layout, b.stop - b.start, b.start) for b in block_lanes(spec)]
    return (
        tuple(lane for first, _ in blocks for lane in first),
        tuple(lane for _, second in blocks for lane in second),
    )


def block_lanes(spec: RotarySpec) -> list[slice]:
    """The runs of the last axis that the layout pairs by themselves: one, but for `Sections`."""
    return [
        slice(spec.rotary_start + 2 * first, spec.rotary_start + 2 * (first + count))
        for first, count in spec.blocks
    ]


def lane_permutation(spec_from: RotarySpec, spec_to: RotarySpec) -> tuple[int, ...]:
    """Which lane of a feature vector for one spec goes where another spec looks for it.

    Rotating ``x[..., p]`` by ``spec_to`` is rotating ``x`` by ``spec_from``, up to the order of
    the lanes of the result; so with ``p`` applied to q and k, all scores stay what they were.

    Parameters
    ----------
    spec_from, spec_to : RotarySpec
        Alike in head_dim, rotary_dim and rotary_start. Their layouts may differ, and so may their
        direction: where it does, the members of every pair change places. Base, schedule and
        output layout do not matter.

    Returns
    -------
    tuple of head_dim int
        ``p`` with ``x_to = x_from[..., p]``; pass-through lanes stay where they are.

    Raises
    ------
    SpecError
        If the specs do not rotate the same lanes.

    Examples
    --------
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.layouts import lane_permutation
    >>> half = RotarySpec(head_dim=8, rotary_dim=6, layout="half")
    >>> lane_permutation(half, RotarySpec(head_dim=8, rotary_dim=6))
    (0, 3, 1, 4, 2, 5, 6, 7)
    """
    check_spec(spec_from)
    check_spec(spec_to)
    for name in ("head_dim", "rotary_dim", "rotary_start"):
        given, wanted = getattr(spec_from, name), getattr(spec_to, name)
        if given != wanted:
            raise SpecError(
                f"spec_from and spec_to must agree on {name}, got {given} and {wanted}. "
                "Hint: a permutation of lanes moves pairs, it makes no new ones."
            )
    first, second = input_lanes(spec_from)
    if spec_from.inverse != spec_to.inverse:
        first, second = second, first  # (b, a) turned by +m theta is (a, b) turned by -m theta
    order = list(range(spec_from.head_dim))
    for sources, targets in zip((first, second), input_lanes(spec_to)):
        for source, target in zip(sources, targets):
            order[target] = source
    return tuple(order)


def split_pairs(x: Array, layout: Layout) -> tuple[Array, Array]:
    """First and second members of the pairs along the last axis, each of half its length."""
    if layout == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def join_pairs(first: Array, second: Array, layout: Layout, xp: Namespace) -> Array:
    """The inverse of `split_pairs`."""
    if layout == "interleaved":
        shape = (*first.shape[:-1], 2 * first.shape[-1])  # -1 is ambiguous for an empty array
        return xp.reshape(xp.stack([first, second], axis=-1), shape)
    return xp.concat([first, second], axis=-1)


def take_pairs(x: Array, spec: RotarySpec, xp: Namespace) -> tuple[Array, Array]:
    """First and second members of the spec's pairs in ``x``, each of shape (..., pairs)."""
    parts = [split_pairs(x[..., block], spec.layout) for block in block_lanes(spec)]
    if len(parts) == 1:
        return parts[0]
    first, second = zip(*parts, strict=True)
    return xp.concat(first, axis=-1), xp.concat(second, axis=-1)


def put_pairs(first: Array, second: Array, spec: RotarySpec, xp: Namespace) -> Array:
    """The rotated lanes, (..., rotary_dim), from members of shape (..., pairs) each."""
    layout = spec.output_layout or spec.layout
    parts = [
        join_pairs(first[..., a : a + n], second[..., a : a + n], layout, xp)
        for a, n in spec.blocks
    ]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)
