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
    return pair_lanes(spec.layout, spec.rotary_dim, spec.rotary_start)


def output_lanes(spec: RotarySpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the spec puts its rotated pairs."""
    return pair_lanes(spec.output_layout or spec.layout, spec.rotary_dim, spec.rotary_start)


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
