"""The order of measured pairs: a layout by name, or else a permutation of the lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rotary_spec import RotarySpec, Sections
from rotary_spec.layouts import input_lanes, output_lanes
from rotary_spec.sections import Pairing
from rotary_spec.spec import LAYOUTS, Layout
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
    pairing: Pairing = "across"


def arrange(
    structure: Structure,
    measured: Frequencies,
    keep: npt.NDArray[np.bool_],
    head_dim: int,
    *,
    blocks: bool = False,
) -> Arrangement:
    """Name the layout, or else order the pairs by frequency and give the permutation.

    ``keep`` says which pairs keep their lanes in order; the others are turned round, so that all
    go the same way. ``blocks``: whether the lanes of an axis may be kept together.
    """
    inputs = [p if k else p[::-1] for p, k in zip(structure.inputs, keep, strict=True)]
    outputs = [p if k else p[::-1] for p, k in zip(structure.outputs, keep, strict=True)]
    runs = [sizes for sizes in (_runs(inputs), _runs(outputs)) if sizes and blocks]
    for spec in _candidates(inputs, runs, head_dim):
        named = _pairs(input_lanes(spec))[: len(inputs)]
        if sorted(inputs) != sorted(named):
            continue
        order = tuple(inputs.index(pair) for pair in named)
        moved_to = tuple(outputs[i] for i in order)
        out = next((o for o in LAYOUTS if moved_to == _written(spec, o)[: len(inputs)]), "permuted")
        within = spec.sections is not None
        if out == "permuted" and not within and runs:
            continue  # perhaps only the outputs keep the lanes of an axis together
        return Arrangement(
            spec.layout, out, named, moved_to, order, spec.rotary_start, spec.rotary_dim, None,
            "within" if within else "across",
        )  # fmt: skip
    count = len(inputs)
    order = tuple(int(i) for i in np.argsort(-np.abs(measured.theta), kind="stable"))
    pairs = tuple(inputs[i] for i in order)
    moved = [pair[m] for m in (0, 1) for pair in pairs]
    permutation = (*moved, *(lane for lane in range(head_dim) if lane not in set(moved)))
    out = "permuted" if inputs == outputs else "other"
    moved_to = tuple(outputs[i] for i in order)
    return Arrangement("permuted", out, pairs, moved_to, order, 0, 2 * count, permutation)


def _candidates(
    inputs: list[tuple[int, int]], runs: list[tuple[int, ...]], head_dim: int
) -> Iterator[RotarySpec]:
    """Specs whose pairs may be the measured ones: across all rotated lanes, or within blocks."""
    count, start = len(inputs), min(lane for pair in inputs for lane in pair)
    width = _half_width(inputs, start)
    for layout in LAYOUTS:
        dim = 2 * width if layout == "half" and width else 2 * count
        if start + dim <= head_dim:
            yield RotarySpec(head_dim, layout=layout, rotary_dim=dim, rotary_start=start)
    for sizes in runs:
        for layout, other in (LAYOUTS, LAYOUTS[::-1]):
            yield RotarySpec(
                head_dim,
                layout=layout,
                output_layout=other,  # keeps the blocks of either, `arrange` reads which it is
                rotary_dim=2 * count,
                rotary_start=start,
                sections=Sections(sizes, pairing="within"),
            )


def _runs(pairs: list[tuple[int, int]]) -> tuple[int, ...] | None:
    """Pairs per block where the lanes are several blocks, each in the half layout by itself."""
    left, sizes = dict(pairs), []
    place = min(left)
    while place in left:
        size = left[place] - place
        block = range(place, place + size)
        if size < 1 or any(left.pop(lane, None) != lane + size for lane in block):
            return None
        sizes.append(size)
        place += 2 * size
    # Blocks of one pair each are the interleaved layout.
    return tuple(sizes) if len(sizes) > 1 and max(sizes) > 1 and not left else None


def _pairs(lanes: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(*lanes, strict=True))


def _written(spec: RotarySpec, layout: Layout) -> tuple[tuple[int, int], ...]:
    """Where the pairs of a spec go in an output layout."""
    return _pairs(output_lanes(replace(spec, output_layout=layout)))


def _half_width(inputs: list[tuple[int, int]], start: int) -> int:
    """Distance of the members where it is the same for every pair of the half layout, else 0."""
    distances = {second - first for first, second in inputs}
    firsts = sorted(first for first, _ in inputs)
    consecutive = firsts == list(range(start, start + len(inputs)))
    width = distances.pop() if len(distances) == 1 else 0
    return width if consecutive and width >= len(inputs) else 0
