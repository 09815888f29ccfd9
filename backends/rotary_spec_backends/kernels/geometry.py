"""Where the rows of an array lie in memory, and which of them share a position.

The GPU kernels see every array as (batch, sequence, heads, head_dim) with strides, a row being one
head of one token. Plain tuples of integers in and out: no framework is needed to plan a launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants

Ints = Sequence[int]


class Strides(NamedTuple):
    """Elements from one batch entry, token or head to the next."""

    batch: int
    token: int
    head: int


@dataclass(frozen=True)
class Tokens:
    """The tokens that kernels are launched over, and where their positions are found.

    Attributes
    ----------
    batch, sequence : int
        Token t is token ``t % sequence`` of batch entry ``t // sequence``.
    position_batch, position_token : int
        Strides of the positions.
    """

    batch: int
    sequence: int
    position_batch: int
    position_token: int

    @property
    def count(self) -> int:
        return self.batch * self.sequence


@dataclass(frozen=True)
class Rows:
    """The rows of one array at every token: ``entries`` batch entries times ``heads``."""

    tokens: Tokens
    entries: int
    heads: int
    source: Strides
    target: Strides

    @property
    def count(self) -> int:
        return self.entries * self.heads


class _Axis(NamedTuple):
    size: int
    source: int
    target: int
    position: int


MOST = 2**31 - 2**16
"""Tokens and rows are counted in 32 bits, and rounded up to a block."""

UNEVEN = "leading axes or positions that make no grid of a batch and heads"

FEW_TOKENS = 16
"""Fewer tokens than this would leave a block of threads idle."""


def rows_of(
    shape: Ints, source: Ints, target: Ints, axis: int, position_shape: Ints, position: Ints
) -> Rows | None:
    """The rows of an array, or None where its leading axes do not make one batch and one heads.

    Parameters
    ----------
    shape, source, target : sequence of int
        Shape of the array; strides of the array and of the array to write, in elements.
    axis : int
        The sequence axis, counted from the end; -2 for an array of one axis.
    position_shape, position : sequence of int
        Shape and strides of the positions, which broadcast against ``shape[:-1]`` with the
        sequence axis moved last.

    Examples
    --------
    >>> from rotary_spec_backends.kernels.geometry import rows_of
    >>> bhsd = (2, 8, 512, 64), (262144, 32768, 64, 1)
    >>> rows = rows_of(bhsd[0], bhsd[1], bhsd[1], -2, (512,), (1,))
    >>> rows.tokens.count, rows.entries, rows.heads, rows.source
    (512, 1, 16, Strides(batch=0, token=64, head=32768))
    """
    leading = [_Axis(*values, 0) for values in zip(shape[:-1], source[:-1], target[:-1])]
    sequence = leading.pop(axis + 1) if leading else _Axis(1, 0, 0, 0)
    steps = [0 if size == 1 else step for size, step in zip(position_shape, position)]
    position_token = steps.pop() if steps else 0
    for i, step in enumerate(reversed(steps)):
        leading[-1 - i] = leading[-1 - i]._replace(position=step)

    merged = _merge([axis for axis in leading if axis.size != 1])
    own = [axis for axis in merged if axis.position]
    shared = [axis for axis in merged if not axis.position]
    if len(own) > 1 or len(merged) > 2:
        return None
    nothing = _Axis(1, 0, 0, 0)
    heads = min(shared, key=lambda axis: abs(axis.source), default=nothing)
    batch = next((axis for axis in merged if axis is not heads), nothing)
    # Positions that the whole batch shares are turned into cos and sin once for all of it, unless
    # there are too few of them to go round.
    per_entry = bool(own) or (sequence.size < FEW_TOKENS and len(shared) == 2)
    return Rows(
        Tokens(batch.size if per_entry else 1, sequence.size, batch.position, position_token),
        1 if per_entry else batch.size,
        heads.size,
        Strides(batch.source, sequence.source, heads.source),
        Strides(batch.target, sequence.target, heads.target),
    )


def _merge(axes: list[_Axis]) -> list[_Axis]:
    """Neighbouring axes that are one axis in memory, as one."""
    merged: list[_Axis] = []
    for axis in axes:
        if merged and all(
            outer == axis.size * inner for outer, inner in zip(merged[-1][1:], axis[1:])
        ):
            axis = axis._replace(size=axis.size * merged.pop().size)
        merged.append(axis)
    return merged


def widest(width: int, offsets: Ints) -> int:
    """The widest vector, of at most ``width`` elements, that none of the offsets tears apart.

    >>> from rotary_spec_backends.kernels.geometry import widest
    >>> widest(8, (64, 20)), widest(8, (3,))
    (4, 1)
    """
    while any(offset % width for offset in offsets):
        width //= 2
    return width


def in_twos(keys: Sequence[object]) -> list[tuple[int, int]]:
    """Indices of things two by two where their keys are equal; one without a match twice."""
    waiting = list(range(len(keys)))
    twos: list[tuple[int, int]] = []
    while waiting:
        first = waiting.pop(0)
        second = next((i for i in waiting if keys[i] == keys[first]), first)
        if second != first:
            waiting.remove(second)
        twos.append((first, second))
    return twos


_ROWS = 8
"""Enough rows for one cos and sin that their cost disappears behind the memory traffic."""
_ENOUGH = 4096
"""More programs than any GPU runs at once; below that, fewer rows each."""


def rows_per_program(blocks_times_rows: int) -> int:
    """How many rows are turned by one cos and sin; programs are blocks times rows over these."""
    each = _ROWS
    while each > 1 and blocks_times_rows // each < _ENOUGH:
        each //= 2
    while blocks_times_rows // each >= 2**30:  # a grid has at most 2^31 - 1 programs
        each *= 2
    return each


def heads_first(rows: Rows) -> bool:
    """Whether heads are nearer to each other in memory than tokens are."""
    return abs(rows.source.head) < abs(rows.source.token)


def signed_turns(spec: RotarySpec, seq_len: int | None) -> list[int]:
    """The frequencies in units of 2^-64 turn per position, modulo one turn, as 64-bit integers."""
    reduced = (turn % 2**64 for turn in constants(spec, seq_len)[0])
    return [turn - 2**64 if turn >= 2**63 else turn for turn in reduced]
