"""Which lanes form pairs, and where they go: read off the operator, without knowing a spec."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from rotary_spec_conformance.probe import Floats

Pair = tuple[int, int]

_WEAK = 100.0
"""How much larger than any other weak entry of its column a slow pair's sine must be."""


class NotRotary(Exception):
    """The operator is not a rotation of pairs.

    Attributes
    ----------
    breach : str
        The property that it breaks: "norm", "pairs", "linearity", ...
    size : float
        By how much.
    """

    def __init__(self, breach: str, text: str, size: float = float("nan")) -> None:
        super().__init__(text)
        self.breach = breach
        self.size = size


@dataclass(frozen=True)
class Structure:
    """The pairs of an operator.

    Attributes
    ----------
    inputs : tuple of (lane, lane)
        The lanes of each pair, the lower first, in order of the first lanes.
    outputs : tuple of (lane, lane)
        Where the first and the second member of each pair go.
    kept : tuple of int
        Lanes that do not turn.
    kept_gain : float
        What kept lanes are multiplied by.
    """

    inputs: tuple[Pair, ...]
    outputs: tuple[Pair, ...]
    kept: tuple[int, ...]
    kept_gain: float


def read_structure(operators: Floats, roundoff: float) -> Structure:
    """The pairs that an operator mixes.

    Parameters
    ----------
    operators : array (positions, head_dim, head_dim)
        Matrices at several positions, the first of them position 0.
    roundoff : float
        Unit roundoff of the outputs.

    Raises
    ------
    NotRotary
        If lanes mix in other ways than two by two, or a 2 x 2 block is not a rotation.
    """
    reach = np.abs(operators).max(axis=0)
    if not np.isfinite(reach).all():
        raise NotRotary("finite", "the output is not finite")
    threshold = 64 * roundoff * reach.max(initial=0.0)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for column in range(reach.shape[1]):
        groups[_rows_reached(reach[:, column], threshold)].append(column)
    kept: list[int] = []
    pairs: list[tuple[Pair, Pair]] = []
    for rows, columns in groups.items():
        if rows == tuple(columns) and len(rows) == 1:
            kept.append(columns[0])
        elif len(rows) == 2 == len(columns):
            pairs.append(((columns[0], columns[1]), _aligned(operators, rows, columns, roundoff)))
        else:
            raise NotRotary(
                "pairs",
                f"input lanes {_listed(columns)} reach output lanes {_listed(list(rows))}: a "
                "rotary embedding mixes two with two",
                float(reach[list(rows)][:, columns].max(initial=0.0)),
            )
    pairs.sort()
    return Structure(
        tuple(p for p, _ in pairs), tuple(o for _, o in pairs), tuple(kept), _gain(operators, kept)
    )


def _rows_reached(column: Floats, threshold: float) -> tuple[int, ...]:
    """Rows that a lane reaches; a very slow pair's sine may be far below the threshold."""
    strong = np.flatnonzero(column > threshold)
    if len(strong) == 1:
        weak = np.where(column > threshold, 0.0, column)
        first, second = np.sort(weak)[::-1][:2] if len(weak) > 1 else (0.0, 0.0)
        if first > 0 and first > _WEAK * second:
            strong = np.sort(np.append(strong, int(np.argmax(weak))))
    return tuple(int(row) for row in strong)


def _aligned(operators: Floats, rows: tuple[int, ...], columns: list[int], roundoff: float) -> Pair:
    """The rows in the order that makes every block a rotation: first member's row first."""
    first, second = rows
    blocks = operators[:, [first, second]][:, :, columns]
    origin = np.abs(blocks[0])
    straight, crossed = origin[0, 0] + origin[1, 1], origin[0, 1] + origin[1, 0]
    certain = min(straight, crossed) < 1e-3 * max(straight, crossed)
    swap = crossed > straight if certain else float(np.linalg.det(blocks).sum()) < 0
    if swap:
        first, second = second, first
        blocks = blocks[:, ::-1]
    scale = np.abs(blocks).max()
    residual = max(
        np.abs(blocks[:, 0, 0] - blocks[:, 1, 1]).max(),
        np.abs(blocks[:, 0, 1] + blocks[:, 1, 0]).max(),
    )
    if residual > 64 * roundoff * scale:
        raise NotRotary(
            "norm",
            f"lanes {columns[0]} and {columns[1]} mix, but not by a rotation: cosines or sines of "
            f"the pair differ by {residual:.2g}",
            float(residual),
        )
    return first, second


def _gain(operators: Floats, kept: list[int]) -> float:
    if not kept:
        return 1.0
    values = operators[:, kept, kept]
    if np.ptp(values) > 0:
        raise NotRotary("norm", "lanes that do not turn are scaled differently", np.ptp(values))
    return float(values[0, 0])


def _listed(lanes: list[int]) -> str:
    shown = ", ".join(map(str, lanes[:6]))
    return f"{shown}, ... ({len(lanes)} lanes)" if len(lanes) > 6 else shown or "none"
