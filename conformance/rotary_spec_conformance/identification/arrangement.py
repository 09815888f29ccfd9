"""The order of measured pairs: a layout by name, or else a permutation of the lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rotary_spec.layouts import pair_lanes
from rotary_spec.spec import LAYOUTS
from rotary_spec_conformance.identification.structure import Structure
from rotary_spec_conformance.identification.unwrap import Frequencies


@dataclass(frozen=True)
class Arrangement:
    """Pairs in frequency order, named where the order of their lanes has a name."""

    layout: str
    output_layout: str
    pairs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    rotary_start: int
    rotary_dim: int
    permutation: tuple[int, ...] | None


def arrange(
    structure: Structure, measured: Frequencies, keep: npt.NDArray[np.bool_], head_dim: int
) -> Arrangement:
    """Name the layout, or else order the pairs by frequency and give the permutation.

    ``keep`` says which pairs keep their lanes in order; the others are turned round, so that all
    go the same way.
    """
    inputs = [p if k else p[::-1] for p, k in zip(structure.inputs, keep, strict=True)]
    outputs = [p if k else p[::-1] for p, k in zip(structure.outputs, keep, strict=True)]
    count, start = len(inputs), min(lane for pair in inputs for lane in pair)
    width = _half_width(inputs, start)
    for layout in LAYOUTS:
        dim = 2 * width if layout == "half" and width else 2 * count
        if start + dim > head_dim:
            continue
        named = list(zip(*pair_lanes(layout, dim, start), strict=True))[:count]
        if sorted(inputs) == sorted(named):
            order = tuple(inputs.index(pair) for pair in named)
            sorted_outputs = [outputs[i] for i in order]
            out = next(
                (
                    o
                    for o in LAYOUTS
                    if sorted_outputs == list(zip(*pair_lanes(o, dim, start), strict=True))[:count]
                ),
                "permuted",
            )
            return Arrangement(
                layout, out, tuple(named), tuple(sorted_outputs), order, start, dim, None
            )
    order = tuple(int(i) for i in np.argsort(-np.abs(measured.theta), kind="stable"))
    pairs = tuple(inputs[i] for i in order)
    moved = [pair[m] for m in (0, 1) for pair in pairs]
    permutation = (*moved, *(lane for lane in range(head_dim) if lane not in set(moved)))
    out = "permuted" if inputs == outputs else "other"
    moved_to = tuple(outputs[i] for i in order)
    return Arrangement("permuted", out, pairs, moved_to, order, 0, 2 * count, permutation)


def _half_width(inputs: list[tuple[int, int]], start: int) -> int:
    """Distance of the members where it is the same for every pair of the half layout, else 0."""
    distances = {second - first for first, second in inputs}
    firsts = sorted(first for first, _ in inputs)
    consecutive = firsts == list(range(start, start + len(inputs)))
    width = distances.pop() if len(distances) == 1 else 0
    return width if consecutive and width >= len(inputs) else 0
