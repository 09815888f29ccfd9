"""How large the blocks of the linear-attention kernels are, and the arguments of a launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants
from rotary_spec_backends.kernels.geometry import signed_turns

Kernel = Literal["attend", "query_gradients", "key_gradients"]

WIDTHS = (32, 64, 128)
"""The head_dims of the kernels: half of it, a side of their products, is 16 or more."""

HALF, INTERLEAVED, SCATTERED = range(3)  # as in `triton_linear_attention`


class Blocks(NamedTuple):
    """How a kernel is cut: values of a program, tokens of a chunk, warps, and pipeline stages."""

    values: int
    chunk: int
    warps: int
    stages: int


class Sizes(NamedTuple):
    """Of a call: q is (batch, heads, length, width), v is (batch, key_heads, length, values)."""

    batch: int
    heads: int
    key_heads: int
    length: int
    values: int


def blocks_of(kernel: Kernel, width: int, values: int, itemsize: int) -> Blocks:
    """The blocks of a kernel; both kernels of the gradients have the same blocks of values.

    Compiled by Triton 3.9 for sm_90, what a chunk needs stays in registers with these, or nearly
    so. Chosen by that alone, not by time.
    """
    narrow, forward = itemsize < 4, kernel == "attend"
    most = 128 if forward and narrow else 64
    block = min(most, max(16, 1 << (values - 1).bit_length()))
    if narrow:
        return Blocks(block, 64 if forward and width < 128 else 32, 8, 2)
    return Blocks(block, 16, 8 if width == 128 else 4, 2)


def arguments(
    kernel: Kernel,
    sizes: Sizes,
    spec: RotarySpec,
    seq_len: int | None,
    itemsize: int,
    strides: Sequence[Sequence[int]],
    extra: Sequence[float] = (),
    state: bool = False,
) -> list[int | float]:
    """Number of programs, warps and stages, and the kernel's arguments after its pointers.

    Parameters
    ----------
    kernel : str
    sizes : Sizes
    spec : RotarySpec
    seq_len : int or None
    itemsize : int
        Bytes of an element of q, k and v.
    strides : sequence of sequences of int
        Of the arrays that have any, all but the last, as the kernel names them; positions last.
    extra : sequence of float
        What follows the magnitudes.
    state : bool
        Whether the call goes on from a state.
    """
    blocks = blocks_of(kernel, spec.head_dim, sizes.values, itemsize)
    groups = sizes.heads // sizes.key_heads
    heads = sizes.key_heads if kernel == "key_gradients" else sizes.heads
    _, magnitude = constants(spec, seq_len)
    last = {"attend": (int(state),), "query_gradients": (), "key_gradients": (int(groups > 1),)}
    mode = (mode_of(spec), spec.head_dim // 2, sizes.values, *blocks[:2], int(itemsize == 4))
    return [
        sizes.batch * heads * -(-sizes.values // blocks.values),
        *blocks[2:],
        sizes.length,
        heads,
        groups,
        *(step for steps in strides for step in steps),
        magnitude,
        -magnitude if spec.inverse else magnitude,
        *extra,
        *mode,
        *last[kernel],
    ]


def mode_of(spec: RotarySpec) -> int:
    """Where the members of the pairs lie: as neighbours, in two halves, or anywhere."""
    if spec.layout == "interleaved" and spec.rotary_start % 2 == 0:
        return INTERLEAVED
    return HALF if spec.layout == "half" and spec.rotary_dim == spec.head_dim else SCATTERED


def pair_table(spec: RotarySpec, seq_len: int | None) -> list[list[int]]:
    """All lanes in pairs, also those that pass through: six rows of head_dim / 2 integers.

    Units of 2^-64 turn per position; whether the pair turns; its two lanes; and its two lanes in
    the rotated features, where a spec may have them elsewhere.

    Examples
    --------
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec_backends.kernels.linear_attention_launch import pair_table
    >>> spec = RotarySpec(8, layout="half", output_layout="interleaved", rotary_dim=4)
    >>> pair_table(spec, None)[1:]
    [[1, 1, 0, 0], [0, 1, 4, 6], [2, 3, 5, 7], [0, 2, 4, 6], [1, 3, 5, 7]]
    """
    start, end = spec.rotary_start, spec.rotary_start + spec.rotary_dim
    inputs, outputs = (
        _lanes(layout, start, spec.pairs)
        for layout in (spec.layout, spec.output_layout or spec.layout)
    )
    turning = [
        (turn, 1, *lanes, *new)
        for turn, lanes, new in zip(signed_turns(spec, seq_len), inputs, outputs)
    ]
    rest = [lane for lane in range(spec.head_dim) if not start <= lane < end]
    still = [(0, 0, *lanes, *lanes) for lanes in zip(rest[::2], rest[1::2])]
    # In the order of the lanes: what is read as neighbours comes in that order.
    ordered = sorted(turning + still, key=lambda pair: pair[2])
    return [list(row) for row in zip(*ordered)]


def _lanes(layout: str, start: int, pairs: int) -> list[tuple[int, int]]:
    if layout == "interleaved":
        return [(start + 2 * i, start + 2 * i + 1) for i in range(pairs)]
    return [(start + i, start + pairs + i) for i in range(pairs)]
