"""The gradients of `triton_linear_attention.attend`: of the queries, then of the keys and values.

With n the sums over the values, t the denominators, a = R phi(q) and b = R phi(k), the output is
n / t, and its gradient G gives dn = G / t and dt = -(G . n) / t^2. Nothing of the forward pass is
kept but t: S, z and the weights are computed again, by chunks as there.

``query_gradients`` goes forward: da_i = sum over j <= i of (dn_i . v_j) b_j, which also gives
dt_i = -(da_i . a_i) / t_i without the output. ``key_gradients`` goes backward, with the state
T, the sum of dn a^T over later queries, and w, that of dt phi(q).

A program has one block of the values. The gradients of q and k are sums over the blocks, of which
each program gives one term: ``dq``, ``dk`` and ``d_totals`` have an axis of blocks in front.
"""
# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from rotary_spec_backends.kernels.triton_kernel import store_pairs
from rotary_spec_backends.kernels.triton_linear_attention import (
    INTERLEAVED,
    SCATTERED,
    cos_sin_of,
    dot,
    features,
    joined,
    pairs_of,
    parted,
    turned,
)


@triton.jit
def store_gradient(
    dx, x_first, x_second, phi_first, phi_second, d_first, d_second, live, first_lane, second_lane,
    MODE: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """The gradient of x from that of phi(x): phi' is 1 above 0, and phi itself below."""
    first = tl.where(x_first > 0, d_first, d_first * phi_first)
    second = tl.where(x_second > 0, d_second, d_second * phi_second)
    if MODE == SCATTERED:
        tl.store(dx + first_lane, first.to(dx.dtype.element_ty), mask=live)
        tl.store(dx + second_lane, second.to(dx.dtype.element_ty), mask=live)
    else:
        store_pairs(dx, first, second, live, MODE == INTERLEAVED, PAIRS, PAIRS)


@triton.jit
def query_gradients(
    q, k, v, dout, totals, dq, d_totals, positions, pairs,
    length, heads, groups,
    q_batch: tl.int64, q_head: tl.int64, q_token: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_token: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_token: tl.int64,
    dout_batch: tl.int64, dout_head: tl.int64, dout_token: tl.int64,
    dq_block: tl.int64, dq_batch: tl.int64, dq_head: tl.int64, dq_token: tl.int64,
    position_batch: tl.int64, position_token: tl.int64,
    magnitude: tl.float32, sin_magnitude: tl.float32,
    MODE: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
    VALUES_BLOCK: tl.constexpr, CHUNK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of q and of the denominators, for one query head and one block of the values."""
    blocks: tl.constexpr = (VALUES + VALUES_BLOCK - 1) // VALUES_BLOCK
    block, row = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = row // heads, row % heads
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head // groups * k_head
    v += batch * v_batch + head // groups * v_head
    dout += batch * dout_batch + head * dout_head
    dq += block * dq_block + batch * dq_batch + head * dq_head
    positions += batch * position_batch
    totals += row * length
    d_totals += (tl.num_programs(0) // blocks * block + row) * length
    turn, magnitudes, sin_magnitudes, first_lane, second_lane = pairs_of(
        pairs, magnitude, sin_magnitude, PAIRS
    )

    index = tl.arange(0, CHUNK)
    earlier = index[:, None] >= index[None, :]
    ones = tl.where(earlier, 1.0, 0.0).to(tl.float32 if WIDE else tl.bfloat16)
    value = block * VALUES_BLOCK + tl.arange(0, VALUES_BLOCK)
    s = tl.zeros((VALUES_BLOCK, 2 * PAIRS), tl.float32)
    z = tl.zeros((1, 2 * PAIRS), tl.float32)
    nothing = tl.zeros((CHUNK, 2 * PAIRS), tl.float32)

    for start in range(0, length, CHUNK):
        token = start + index
        live = token < length
        step, rows = token.to(tl.int64), live[:, None]
        inside = rows & (value < VALUES)[None, :]
        cos, sin = cos_sin_of(
            positions, step * position_token, live, turn, magnitudes, sin_magnitudes
        )
        _, _, k_first, k_second = features(
            k + (step * k_token)[:, None], rows, first_lane, second_lane, MODE, PAIRS
        )
        values = tl.load(v + (step * v_token)[:, None] + value[None, :], mask=inside, other=0.0)
        given = tl.load(
            dout + (step * dout_token)[:, None] + value[None, :], mask=inside, other=0.0
        )
        inverse = 1.0 / tl.load(totals + token, mask=live, other=1.0)[:, None]
        weights = tl.zeros((CHUNK, CHUNK), tl.float32)
        weights = tl.where(earlier, dot(given, values, weights, False, True, WIDE), 0.0)
        b, phi_k = joined(*turned(k_first, k_second, cos, sin)), joined(k_first, k_second)
        da = dot(given, s, nothing, False, False, WIDE)
        da = dot(weights, b, da, False, False, WIDE) * inverse
        s = dot(values, b, s, True, False, WIDE)

        x_first, x_second, q_first, q_second = features(
            q + (step * q_token)[:, None], rows, first_lane, second_lane, MODE, PAIRS
        )
        # Turned back, da meets phi(q) instead of R phi(q), and their product is the same.
        da_first, da_second = parted(da)
        d_first, d_second = turned(da_first, da_second, cos, -sin)
        d_total = -inverse * tl.sum(d_first * q_first + d_second * q_second, axis=1, keep_dims=True)
        z_first, z_second = parted(z + dot(ones, phi_k, nothing, False, False, WIDE))
        z += tl.sum(phi_k, axis=0, keep_dims=True)
        d_first += d_total * z_first
        d_second += d_total * z_second
        tl.store(d_totals + token[:, None], d_total, mask=rows)
        store_gradient(
            dq + (step * dq_token)[:, None],
            x_first, x_second, q_first, q_second, d_first, d_second,
            rows, first_lane, second_lane, MODE, PAIRS,
        )  # fmt: skip


@triton.jit
def key_gradients(
    q, k, v, dout, totals, d_totals, dk, dv, positions, pairs,
    length, key_heads, groups,
    q_batch: tl.int64, q_head: tl.int64, q_token: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_token: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_token: tl.int64,
    dout_batch: tl.int64, dout_head: tl.int64, dout_token: tl.int64,
    dk_block: tl.int64, dk_batch: tl.int64, dk_head: tl.int64, dk_token: tl.int64,
    dv_batch: tl.int64, dv_head: tl.int64, dv_token: tl.int64,
    position_batch: tl.int64, position_token: tl.int64,
    magnitude: tl.float32, sin_magnitude: tl.float32,
    MODE: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
    VALUES_BLOCK: tl.constexpr, CHUNK: tl.constexpr, WIDE: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v, for one key head, all its query heads, and one block of the values."""
    blocks: tl.constexpr = (VALUES + VALUES_BLOCK - 1) // VALUES_BLOCK
    block, row = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = row // key_heads, row % key_heads
    q += batch * q_batch + head * groups * q_head
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    dout += batch * dout_batch + head * groups * dout_head
    dk += block * dk_block + batch * dk_batch + head * dk_head
    dv += batch * dv_batch + head * dv_head
    positions += batch * position_batch
    totals += row * groups * length
    d_totals += (tl.num_programs(0) // blocks * block + row) * groups * length
    turn, magnitudes, sin_magnitudes, first_lane, second_lane = pairs_of(
        pairs, magnitude, sin_magnitude, PAIRS
    )

    index = tl.arange(0, CHUNK)
    earlier = index[:, None] >= index[None, :]
    ones = tl.where(earlier, 1.0, 0.0).to(tl.float32 if WIDE else tl.bfloat16)
    value = block * VALUES_BLOCK + tl.arange(0, VALUES_BLOCK)
    t = tl.zeros((VALUES_BLOCK, 2 * PAIRS), tl.float32)
    w = tl.zeros((1, 2 * PAIRS), tl.float32)
    nothing = tl.zeros((CHUNK, 2 * PAIRS), tl.float32)
    square = tl.zeros((CHUNK, CHUNK), tl.float32)

    chunks = (length + CHUNK - 1) // CHUNK
    for chunk in range(chunks):
        token = (chunks - 1 - chunk) * CHUNK + index
        live = token < length
        step, rows = token.to(tl.int64), live[:, None]
        inside = rows & (value < VALUES)[None, :]
        cos, sin = cos_sin_of(
            positions, step * position_token, live, turn, magnitudes, sin_magnitudes
        )
        x_first, x_second, k_first, k_second = features(
            k + (step * k_token)[:, None], rows, first_lane, second_lane, MODE, PAIRS
        )
        values = tl.load(v + (step * v_token)[:, None] + value[None, :], mask=inside, other=0.0)
        b = joined(*turned(k_first, k_second, cos, sin))
        d_values = tl.zeros((CHUNK, VALUES_BLOCK), tl.float32)
        d_values = dot(b, t, d_values, False, True, WIDE)
        db = dot(values, t, nothing, False, False, WIDE)
        d_phi = nothing + w
        for group in range(groups if GROUPED else 1):
            at = group * length + token
            _, _, q_first, q_second = features(
                q + group * q_head + (step * q_token)[:, None],
                rows, first_lane, second_lane, MODE, PAIRS,
            )  # fmt: skip
            given = tl.load(
                dout + group * dout_head + (step * dout_token)[:, None] + value[None, :],
                mask=inside,
                other=0.0,
            )
            inverse = 1.0 / tl.load(totals + at, mask=live, other=1.0)[:, None]
            d_total = tl.load(d_totals + at, mask=live, other=0.0)[:, None]
            phi_q = d_total * joined(q_first, q_second)
            d_phi = dot(ones, phi_q, d_phi, True, False, WIDE)
            w += tl.sum(phi_q, axis=0, keep_dims=True)

            a = joined(*turned(q_first * inverse, q_second * inverse, cos, sin))
            weights = tl.where(earlier, dot(a, b, square, False, True, WIDE), 0.0)
            d_values = dot(weights, given, d_values, True, False, WIDE)
            weights = tl.where(earlier, dot(given, values, square, False, True, WIDE), 0.0)
            db = dot(weights, a, db, True, False, WIDE)
            t = dot(given, a, t, True, False, WIDE)

        tl.store(
            dv + (step * dv_token)[:, None] + value[None, :],
            d_values.to(dv.dtype.element_ty),
            mask=inside,
        )
        db_first, db_second = parted(db)
        db_first, db_second = turned(db_first, db_second, cos, -sin)
        d_first, d_second = parted(d_phi)
        store_gradient(
            dk + (step * dk_token)[:, None],
            x_first, x_second, k_first, k_second, d_first + db_first, d_second + db_second,
            rows, first_lane, second_lane, MODE, PAIRS,
        )  # fmt: skip
