"""Which lanes form a pair, which axis and frequency turn it: SPEC.md, written a second time.

Specs are the JSON objects of the manifest. Nothing here is shared with ``rotary_spec.layouts`` and
``rotary_spec.sections``, which the vectors judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """One rotated pair.

    Attributes
    ----------
    first, second : int
        Lanes it is read from.
    to_first, to_second : int
        Lanes it is written to.
    axis : int
        Axis of the positions that turns it; 0 where there is one only.
    index, width : int
        Its frequency is theta_index of the schedule over ``width`` lanes.
    """

    first: int
    second: int
    to_first: int
    to_second: int
    axis: int
    index: int
    width: int


def pairs_of(spec: Mapping[str, Any]) -> tuple[Pair, ...]:
    """Every pair of a spec, in the order of its frequencies."""
    dim, start, sections = spec["rotary_dim"], spec["rotary_start"], spec["sections"]
    count = dim // 2
    sizes = sections["sizes"] if sections else [count]
    axes = _axes(sizes, sections["order"] if sections else "chunked")
    within = bool(sections) and sections["pairing"] == "within"
    pairs, seen = [], [0] * len(sizes)
    for i, axis in enumerate(axes):
        rank = seen[axis]
        seen[axis] += 1
        if within:  # a block of lanes for each axis, and the layout inside it
            block, place, half = start + 2 * (i - rank), rank, sizes[axis]
        else:
            block, place, half = start, i, count
        index, width = i, dim
        if sections and sections["frequencies"] == "restart":
            index, width = rank, 2 * sizes[axis]
        elif sections and sections["frequencies"] == "strided":
            index = len(sizes) * rank + axis
        lanes = [
            _lanes(layout, block, place, half)
            for layout in (spec["layout"], spec["output_layout"] or spec["layout"])
        ]
        pairs.append(Pair(*lanes[0], *lanes[1], axis, index, width))
    return tuple(pairs)


def _lanes(layout: str, block: int, place: int, half: int) -> tuple[int, int]:
    if layout == "interleaved":
        return block + 2 * place, block + 2 * place + 1
    return block + place, block + place + half


def _axes(sizes: list[int], order: str) -> list[int]:
    """The axis of every pair."""
    n, left = len(sizes), list(sizes)
    if order == "chunked":
        return [axis for axis, size in enumerate(sizes) for _ in range(size)]
    if order == "spatial_first":
        return [axis for _ in range(max(sizes[1:], default=0)) for axis in range(1, n)] + [
            0
        ] * sizes[0]
    axes = []
    for i in range(sum(sizes)):  # interleaved: in turn, axis 0 where the other's pairs are spent
        axis = i % n if left[i % n] else 0
        left[axis] -= axis > 0
        axes.append(axis)
    return axes
