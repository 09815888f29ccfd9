"""Causal linear attention (RoFormer Eq. 19) as a Triton kernel.

A program goes through the sequence in chunks, for one head and one block of values, and reads each
row once: features and rotation happen in registers, and what came before is a state S, the sum of
v (R phi(k))^T, and z, the sum of phi(k), in float32.

Whatever the layout in memory, here the lanes come in pairs that are neighbours, and those that
pass through are pairs that do not turn: products of features do not depend on the order of lanes.
"""
# ruff: noqa: N803, SIM102
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from rotary_spec_backends.kernels.triton_kernel import cos_sin, load_pairs

HALF, INTERLEAVED, SCATTERED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Where the members of the pairs are: two halves of the lanes, neighbours, or by a table."""


@triton.jit
def dot(a, b, c, A_TURNED: tl.constexpr, B_TURNED: tl.constexpr, WIDE: tl.constexpr):
    """``c + a b``, of transposed operands where said so.

    WIDE is for float32 input: three products of TensorFloat-32 parts, which loses 3 2^-20 of
    |a| |b|. For 16-bit input every operand is one bfloat16, exactly, or the sum of two, to 2^-16:
    one product, two, or three, which lose nothing, 2^-16 or 3 2^-16 of |a| |b|.
    """
    if WIDE:
        left, right = tl.trans(a) if A_TURNED else a, tl.trans(b) if B_TURNED else b
        c = tl.dot(left, right, c, input_precision="tf32x3")
    else:
        a_high, b_high = a.to(tl.bfloat16), b.to(tl.bfloat16)
        left, right = (
            tl.trans(a_high) if A_TURNED else a_high,
            tl.trans(b_high) if B_TURNED else b_high,
        )
        if a.dtype != tl.bfloat16:
            a_low = (a.to(tl.float32) - a_high.to(tl.float32)).to(tl.bfloat16)
            c = tl.dot(tl.trans(a_low) if A_TURNED else a_low, right, c)
        if b.dtype != tl.bfloat16:
            b_low = (b.to(tl.float32) - b_high.to(tl.float32)).to(tl.bfloat16)
            c = tl.dot(left, tl.trans(b_low) if B_TURNED else b_low, c)
        c = tl.dot(left, right, c)
    return c


@triton.jit
def features(x, live, first_lane, second_lane, MODE: tl.constexpr, PAIRS: tl.constexpr):
    """x, and phi(x) = elu(x) + 1, at the rows ``x``: the first and second members of the pairs.

    NaN stays NaN; rows that are not ``live`` have the features 0.
    """
    if MODE == SCATTERED:
        first = tl.load(x + first_lane, mask=live, other=0.0)
        second = tl.load(x + second_lane, mask=live, other=0.0)
    else:
        first, second = load_pairs(x, live, MODE == INTERLEAVED, PAIRS, PAIRS)
    first, second = first.to(tl.float32), second.to(tl.float32)
    phi_first = tl.where(first > 0, first + 1.0, tl.exp(first))
    phi_second = tl.where(second > 0, second + 1.0, tl.exp(second))
    return first, second, tl.where(live, phi_first, 0.0), tl.where(live, phi_second, 0.0)


@triton.jit
def pairs_of(pairs, magnitude, sin_magnitude, PAIRS: tl.constexpr):
    """Frequencies, what cos and sin are multiplied by, and lanes, from the rows of a table."""
    pair = tl.arange(0, PAIRS)
    turn = tl.load(pairs + pair)[None, :]
    rotates = tl.load(pairs + PAIRS + pair)[None, :] != 0
    first, second = tl.load(pairs + 2 * PAIRS + pair), tl.load(pairs + 3 * PAIRS + pair)
    return (
        turn,
        tl.where(rotates, magnitude, 1.0),
        tl.where(rotates, sin_magnitude, 0.0),
        first[None, :],
        second[None, :],
    )


@triton.jit
def cos_sin_of(positions, step, live, turn, magnitude, sin_magnitude):
    """Cos and sin of every pair at these tokens; those that do not turn get theirs by factors."""
    position = tl.load(positions + step, mask=live, other=0).to(tl.int64)
    cos, sin = cos_sin(position[:, None] * turn)  # wraps: a turn is 2^64
    return cos * magnitude, sin * sin_magnitude


@triton.jit
def turned(first, second, cos, sin):
    """The members of the pairs, rotated; by ``-sin`` the transposed rotation."""
    return first * cos - second * sin, second * cos + first * sin


@triton.jit
def joined(first, second):
    """(tokens, pairs) twice as (tokens, lanes), the members of a pair being neighbours."""
    return tl.reshape(tl.join(first, second), (first.shape[0], 2 * first.shape[1]))


@triton.jit
def parted(x):
    """The inverse of `joined`."""
    return tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))


@triton.jit
def attend(
    q, k, v, out, totals, lowest, positions, pairs, state, normaliser, new_state, new_normaliser,
    length, heads, groups,
    q_batch: tl.int64, q_head: tl.int64, q_token: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_token: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_token: tl.int64,
    out_batch: tl.int64, out_head: tl.int64, out_token: tl.int64,
    position_batch: tl.int64, position_token: tl.int64,
    magnitude: tl.float32, sin_magnitude: tl.float32, eps: tl.float32,
    MODE: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
    VALUES_BLOCK: tl.constexpr, CHUNK: tl.constexpr, WIDE: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """The output and its denominators; with STATE, going on from a state, and the new one.

    ``lowest`` has the least denominator of each batch entry and head, NaN where one is not finite.
    """
    blocks: tl.constexpr = (VALUES + VALUES_BLOCK - 1) // VALUES_BLOCK
    block, row = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = row // heads, row % heads
    key_head = head // groups
    q += batch * q_batch + head * q_head
    k += batch * k_batch + key_head * k_head
    v += batch * v_batch + key_head * v_head
    out += batch * out_batch + head * out_head
    positions += batch * position_batch
    totals += row * length
    turn, magnitudes, sin_magnitudes, first_lane, second_lane = pairs_of(
        pairs, magnitude, sin_magnitude, PAIRS
    )

    index = tl.arange(0, CHUNK)
    earlier = index[:, None] >= index[None, :]
    ones = tl.where(earlier, 1.0, 0.0).to(tl.float32 if WIDE else tl.bfloat16)
    value = block * VALUES_BLOCK + tl.arange(0, VALUES_BLOCK)
    if STATE:
        pair = tl.arange(0, PAIRS)
        key_row = (batch * (heads // groups) + key_head) * (2 * PAIRS)
        z_cell = key_row + joined(first_lane, second_lane)
        new_lane = joined(
            tl.load(pairs + 4 * PAIRS + pair)[None, :], tl.load(pairs + 5 * PAIRS + pair)[None, :]
        )
        s_cell = (key_row + new_lane) * VALUES + value[:, None]
        known = (value < VALUES)[:, None]
        s = tl.load(state + s_cell, mask=known, other=0.0)
        z = tl.load(normaliser + z_cell)
    else:
        s = tl.zeros((VALUES_BLOCK, 2 * PAIRS), tl.float32)
        z = tl.zeros((1, 2 * PAIRS), tl.float32)
    least = tl.full((CHUNK,), float("inf"), tl.float32)
    wrong = tl.zeros((CHUNK,), tl.int32)
    nothing = tl.zeros((CHUNK, 2 * PAIRS), tl.float32)

    for start in range(0, length, CHUNK):
        token = start + index
        live = token < length
        step, rows = token.to(tl.int64), live[:, None]
        _, _, q_first, q_second = features(
            q + (step * q_token)[:, None], rows, first_lane, second_lane, MODE, PAIRS
        )
        _, _, k_first, k_second = features(
            k + (step * k_token)[:, None], rows, first_lane, second_lane, MODE, PAIRS
        )
        cells = (step * v_token)[:, None] + value[None, :]
        inside = rows & (value < VALUES)[None, :]
        values = tl.load(v + cells, mask=inside, other=0.0)
        cos, sin = cos_sin_of(
            positions, step * position_token, live, turn, magnitudes, sin_magnitudes
        )
        phi_k = joined(k_first, k_second)
        z_until = z + dot(ones, phi_k, nothing, False, False, WIDE)
        total = tl.sum(joined(q_first, q_second) * z_until, axis=1) + eps
        z += tl.sum(phi_k, axis=0, keep_dims=True)
        if block == 0:
            tl.store(totals + token, total, mask=live)
        finite = tl.abs(total) < float("inf")
        least = tl.where(live & finite, tl.minimum(least, total), least)
        wrong = tl.where(live & ~finite, 1, wrong)

        a = joined(*turned(q_first, q_second, cos, sin))
        b = joined(*turned(k_first, k_second, cos, sin))
        weights = tl.zeros((CHUNK, CHUNK), tl.float32)
        weights = tl.where(earlier, dot(a, b, weights, False, True, WIDE), 0.0)
        sums = tl.zeros((CHUNK, VALUES_BLOCK), tl.float32)
        sums = dot(a, s, sums, False, True, WIDE)
        sums = dot(weights, values, sums, False, False, WIDE)
        s = dot(values, b, s, True, False, WIDE)
        cells = (step * out_token)[:, None] + value[None, :]
        sums /= tl.where(live, total, 1.0)[:, None]
        tl.store(out + cells, sums.to(out.dtype.element_ty), mask=inside)

    if block == 0:
        any_wrong = tl.max(wrong, axis=0) != 0
        tl.store(lowest + row, tl.where(any_wrong, float("nan"), tl.min(least, axis=0)))
    if STATE:
        if head % groups == 0:
            tl.store(new_state + s_cell, s, mask=known)
            if block == 0:
                tl.store(new_normaliser + z_cell, z)
