"""The rotation as a Triton kernel: rows of up to two arrays, by positions they share.

A program holds the cos and sin of a block of tokens in registers and goes through a chunk of the
rows that stand at those tokens: heads, and where the whole batch shares its positions, batch
entries too. The exact phases so cost nothing next to the memory traffic, and no table is read.

All strides come in units of ``VECTOR`` elements, which tells the compiler what it needs to know
for 16-byte accesses without a specialisation for every combination of sizes.
"""
# ruff: noqa: N803, SIM102
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cos_sin(phase):
    """Cosine and sine of int64 phases in units of 2^-64 turn, float32 within 1 ulp (2^-24).

    The quadrant comes from the top bits. Of the rest, at most an eighth of a turn, the leading 15
    bits times a constant of 9 bits is exact in float32, so that the angle is known to about 48
    bits, as ``angle + rest``, whether or not the compiler contracts products and sums.
    """
    head: tl.constexpr = 402 * 2.0**-23  # 2 pi / 2^17 in two pieces: 9 leading bits, and the rest
    tail: tl.constexpr = 6.283185307179586 * 2.0**-17 - 402 * 2.0**-23
    unit: tl.constexpr = 6.283185307179586 * 2.0**-48
    high = (phase >> 32).to(tl.int32)
    coarse = ((high << 2) >> 17).to(tl.float32)  # signed, without the two bits of the quadrant
    fine = ((phase >> 16) & 0x7FFFFFFF).to(tl.int32).to(tl.float32)
    leading = coarse * head
    trailing = coarse * tail + fine * unit
    angle = leading + trailing
    rest = trailing - (angle - leading)

    square = angle * angle
    # Minimax on |angle| <= pi/4: 0.06 and 0.002 of 2^-24.
    odd = -1.66666549416e-1 + square * (8.33217800591e-3 + square * -1.95172793656e-4)
    even = 4.16666468628e-2 + square * (-1.38873673309e-3 + square * 2.44384295864e-5)
    half = 0.5 * square
    sin = angle + (angle * (square * odd) + (rest - rest * half))
    whole = 1.0 - half
    cos = whole + (((1.0 - whole) - half) + (square * (square * even) - angle * rest))

    quadrant = ((high >> 29) + 1) >> 1
    swapped = (quadrant & 1) != 0
    new_cos, new_sin = tl.where(swapped, sin, cos), tl.where(swapped, cos, sin)
    new_cos = tl.where(((quadrant + 1) & 2) != 0, -new_cos, new_cos)
    return new_cos, tl.where((quadrant & 2) != 0, -new_sin, new_sin)


@triton.jit
def load_pairs(x, live, INTERLEAVED: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr):
    """First and second members of the pairs of the rows at ``x``, each (tokens, BLOCK)."""
    if INTERLEAVED:
        lane = tl.arange(0, 2 * BLOCK)[None, :]
        both = tl.load(x + lane, mask=live & (lane < 2 * PAIRS), other=0.0)
        first, second = tl.split(tl.reshape(both, (both.shape[0], BLOCK, 2)))
    else:
        lane = tl.arange(0, BLOCK)[None, :]
        mask = live & (lane < PAIRS)
        first = tl.load(x + lane, mask=mask, other=0.0)
        second = tl.load(x + PAIRS + lane, mask=mask, other=0.0)
    return first, second


@triton.jit
def store_pairs(
    y, first, second, live, INTERLEAVED: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr
):
    """The inverse of `load_pairs`, rounded to the dtype of ``y``."""
    first, second = first.to(y.dtype.element_ty), second.to(y.dtype.element_ty)
    if INTERLEAVED:
        lane = tl.arange(0, 2 * BLOCK)[None, :]
        both = tl.reshape(tl.join(first, second), (first.shape[0], 2 * BLOCK))
        tl.store(y + lane, both, mask=live & (lane < 2 * PAIRS))
    else:
        lane = tl.arange(0, BLOCK)[None, :]
        mask = live & (lane < PAIRS)
        tl.store(y + lane, first, mask=mask)
        tl.store(y + PAIRS + lane, second, mask=mask)


@triton.jit
def _copy(x, y, live, LANES: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)[None, :]
    mask = live & (lane < LANES)
    tl.store(y + lane, tl.load(x + lane, mask=mask), mask=mask)


@triton.jit(do_not_specialize=["positions"])
def rotate_rows(
    x,
    y,
    x_other,
    y_other,
    positions,
    turns,
    tokens: tl.int32,
    sequence: tl.int32,
    position_batch: tl.int64,
    position_token: tl.int64,
    magnitude: tl.float32,
    sin_magnitude: tl.float32,
    rows_per_program: tl.int32,
    chunks: tl.int32,
    rows: tl.int32,
    heads: tl.int32,
    x_batch: tl.int64,
    x_token: tl.int64,
    x_head: tl.int64,
    y_batch: tl.int64,
    y_token: tl.int64,
    y_head: tl.int64,
    chunks_other: tl.int32,
    rows_other: tl.int32,
    heads_other: tl.int32,
    x_batch_other: tl.int64,
    x_token_other: tl.int64,
    x_head_other: tl.int64,
    y_batch_other: tl.int64,
    y_token_other: tl.int64,
    y_head_other: tl.int64,
    TWO: tl.constexpr,
    CHUNKS_FIRST: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    OUTPUT_INTERLEAVED: tl.constexpr,
    START: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    KEPT_BEFORE: tl.constexpr,
    KEPT_AFTER: tl.constexpr,
    BEFORE_BLOCK: tl.constexpr,
    AFTER_BLOCK: tl.constexpr,
    TOKENS_BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """One block of tokens, one chunk of the rows of ``x``, or of ``x_other`` where ``TWO``."""
    if CHUNKS_FIRST:
        block = tl.program_id(0) // (chunks + chunks_other)
        chunk = tl.program_id(0) % (chunks + chunks_other)
    else:
        blocks = (tokens + TOKENS_BLOCK - 1) // TOKENS_BLOCK
        block = tl.program_id(0) % blocks
        chunk = tl.program_id(0) // blocks
    if TWO:
        if chunk >= chunks:
            chunk -= chunks
            x, y, rows, heads = x_other, y_other, rows_other, heads_other
            x_batch, x_token, x_head = x_batch_other, x_token_other, x_head_other
            y_batch, y_token, y_head = y_batch_other, y_token_other, y_head_other

    token = block * TOKENS_BLOCK + tl.arange(0, TOKENS_BLOCK)
    live = token < tokens
    batch, step = (token // sequence).to(tl.int64), (token % sequence).to(tl.int64)
    position = tl.load(
        positions + (batch * position_batch + step * position_token), mask=live, other=0
    )
    pair = tl.arange(0, PAIRS_BLOCK)
    turn = tl.load(turns + pair, mask=pair < PAIRS, other=0)
    cos, sin = cos_sin(position.to(tl.int64)[:, None] * turn[None, :])  # wraps: a turn is 2^64
    cos, sin = cos * magnitude, sin * sin_magnitude

    live = live[:, None]
    x += ((batch * x_batch + step * x_token) * VECTOR)[:, None]
    y += ((batch * y_batch + step * y_token) * VECTOR)[:, None]
    for row in range(chunk * rows_per_program, min((chunk + 1) * rows_per_program, rows)):
        entry, head = (row // heads).to(tl.int64), (row % heads).to(tl.int64)
        source = x + (entry * x_batch + head * x_head) * VECTOR
        target = y + (entry * y_batch + head * y_head) * VECTOR
        first, second = load_pairs(source + START, live, INTERLEAVED, PAIRS, PAIRS_BLOCK)
        first, second = first.to(tl.float32), second.to(tl.float32)
        store_pairs(
            target + START,
            first * cos - second * sin,
            second * cos + first * sin,
            live,
            OUTPUT_INTERLEAVED,
            PAIRS,
            PAIRS_BLOCK,
        )
        if KEPT_BEFORE:
            _copy(source, target, live, KEPT_BEFORE, BEFORE_BLOCK)
        if KEPT_AFTER:
            after: tl.constexpr = START + 2 * PAIRS
            _copy(source + after, target + after, live, KEPT_AFTER, AFTER_BLOCK)


INTERPRETED = not isinstance(rotate_rows, triton.JITFunction)
"""Whether Triton's interpreter runs the kernel, on the CPU (TRITON_INTERPRET=1)."""
