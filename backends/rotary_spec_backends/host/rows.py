"""The rows of an array, a row being the last axis: the fewest axes that reach them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Axis(NamedTuple):
    """One axis over rows. Strides of source and target in bytes, of the table in rows."""

    size: int
    source: int
    target: int
    table: int


def row_axes(
    shape: Sequence[int],
    source: Sequence[int],
    target: Sequence[int],
    seq_axis: int,
    position_shape: Sequence[int],
) -> list[Axis]:
    """The axes of all rows, in the order of the target's memory, joined where they follow on.

    Parameters
    ----------
    shape : sequence of int
        Of source and target, the lanes last.
    source, target : sequence of int
        Strides in bytes.
    seq_axis : int
        Counted from the end.
    position_shape : sequence of int
        Broadcasts against ``shape[:-1]`` with the sequence axis moved last.

    Examples
    --------
    (batch, seq, heads, lanes) in float32, its rows joined to tokens and heads:

    >>> row_axes((2, 5, 3, 4), (240, 48, 16, 4), (240, 48, 16, 4), -3, (5,))
    [Axis(size=2, source=240, target=240, table=0), Axis(size=5, source=48, target=48, table=1), \
Axis(size=3, source=16, target=16, table=0)]
    """
    order = list(range(len(shape) - 1))
    if seq_axis != -2:
        order.append(order.pop(seq_axis + 1))
    table = [0] * (len(order) - len(position_shape))
    step = 1
    strides: list[int] = []
    for size in reversed(position_shape):
        strides.append(0 if size == 1 else step)
        step *= size
    table += reversed(strides)
    axes = [Axis(shape[a], source[a], target[a], t) for a, t in zip(order, table) if shape[a] != 1]
    axes.sort(key=lambda axis: -abs(axis.target))
    return _joined(axes)


def _joined(axes: list[Axis]) -> list[Axis]:
    out: list[Axis] = []
    for axis in axes:
        if out and all(o == i * axis.size for o, i in zip(out[-1][1:], axis[1:])):
            out[-1] = Axis(out[-1].size * axis.size, *axis[1:])
        else:
            out.append(axis)
    return out
