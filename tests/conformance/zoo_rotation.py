"""Faults of the rotation itself: pairs, direction, magnitude, frequencies, and which lanes.

See `zoo_broken`.
"""

from __future__ import annotations

import torch

import rotary_spec as rs
from tests.conformance.zoo_parts import (
    DIM,
    INTERLEAVED,
    LAST,
    LINEAR,
    LLAMA3,
    PARTIAL,
    SCALED,
    Broken,
    consecutive,
    faults_into,
    frequencies,
    table,
    turn,
    turn_neighbours,
)

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)


# Pairs -----------------------------------------------------------------------------------------


@fault("ROT-2", "this is the interleaved layout")
def half_rotated_as_interleaved(x, positions):
    return turn_neighbours(x, *table(positions))


@fault("ROT-2", "this is the half layout", INTERLEAVED)
def interleaved_rotated_as_half(x, positions):
    return turn(x, *table(positions))


@fault("ROT-2", "repeat_interleave")
def repeat_interleave_for_repeat(x, positions):
    cos, sin = (t.repeat_interleave(2, -1) for t in table(positions))
    a, b = x.float().chunk(2, -1)
    return (x.float() * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


@fault("ROT-2", "repeat_interleave", INTERLEAVED)
def repeat_for_repeat_interleave(x, positions):
    cos, sin = (torch.cat([t, t], -1) for t in table(positions))
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    return (x.float() * cos + torch.stack([-b, a], -1).flatten(-2) * sin).to(x.dtype)


@fault("ROT-2", "output", INTERLEAVED)
def output_left_in_halves(x, positions):
    a, b = x[..., 0::2], x[..., 1::2]
    return turn(torch.cat([a, b], -1), *table(positions))


@fault("ROT-2", "output", rs.RotarySpec(head_dim=DIM, output_layout="half"))
def output_put_back(x, positions):
    return turn_neighbours(x, *table(positions))


@fault("ROT-2", "not a rotation")
def reflection(x, positions):
    cos, sin = table(positions)
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos + b * sin, a * sin - b * cos], -1).to(x.dtype)


@fault("ROT-2", "not a rotation")
def one_sign_missing(x, positions):
    cos, sin = table(positions)
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos + b * sin, b * cos + a * sin], -1).to(x.dtype)


# Direction, origin, magnitude ------------------------------------------------------------------


@fault("ROT-3", "wrong sign")
def wrong_sign(x, positions):
    cos, sin = table(positions)
    return turn(x, cos, -sin)


@fault("ROT-3", "the spec is inverse", rs.RotarySpec(head_dim=DIM, layout="half", inverse=True))
def inverse_ignored(x, positions):
    return turn(x, *table(positions))


@fault("POS-1", "counted from 1")
def counted_from_one(x, positions):
    return turn(x, *table(positions + 1))


@fault("POS-1", "position 0", INTERLEAVED, positions="arange")
def arange_from_one(x, positions):
    return turn_neighbours(x, *table(consecutive(1, x.shape[2])))


@fault("POS-1", "swapped")
def sine_table_first(x, positions):
    cos, sin = table(positions)
    return turn(x, sin, cos)


@fault("ROT-4", "1.001")
def scaled_by_a_thousandth(x, positions):
    cos, sin = table(positions)
    return turn(x, cos * 1.001, sin * 1.001)


@fault("ROT-4", "1.44", SCALED)
def attention_factor_squared(x, positions):
    cos, sin = table(positions)
    return turn(x, cos * 1.2**2, sin * 1.2**2)


@fault("ROT-4", "scaled by 1, the spec says 1.2", SCALED)
def attention_factor_dropped(x, positions):
    return turn(x, *table(positions))


# Frequencies -----------------------------------------------------------------------------------


@fault("FREQ-1", "base 500000")
def other_base(x, positions):
    return turn(x, *table(positions, frequencies(base=500_000.0)))


@fault("FREQ-1", "nothing is rotated")
def identity(x, positions):
    return x.clone()


@fault("FREQ-1", "linear factor of 1 where", LINEAR)
def linear_factor_forgotten(x, positions):
    return turn(x, *table(positions))


@fault("FREQ-1", "linear factor of 16 where", LINEAR)
def linear_factor_twice(x, positions):
    return turn(x, *table(positions, frequencies() / 4 / 4))


@fault("FREQ-1", "another schedule", LLAMA3)
def llama3_ignored(x, positions):
    return turn(x, *table(positions, frequencies(base=500_000.0)))


@fault("FREQ-1", "rotary_dim", PARTIAL)
def exponent_over_head_dim(x, positions):
    cos, sin = table(positions, frequencies()[:4])
    return torch.cat([turn(x[..., :8], cos, sin), x[..., 8:]], -1)


@fault("FREQ-1", "fit base 37275.9")
def exponent_ends_at_one(x, positions):
    """``linspace`` in the exponent, with the last point at 1 instead of beyond it."""
    exponent = torch.linspace(0, 1, DIM // 2, dtype=torch.float64)
    return turn(x, *table(positions, 10_000.0**-exponent))


@fault("FREQ-1", "is 2 times")
def rotated_twice(x, positions):
    cos, sin = table(positions)
    return turn(turn(x, cos, sin), cos, sin)


@fault("FREQ-1", "rounded to bfloat16")
class BufferCastToBfloat16:
    """``model.to(torch.bfloat16)`` rounds the inv_freq buffer as well."""

    def __init__(self):
        self.inv_freq = frequencies().bfloat16()

    def __call__(self, x, positions):
        return turn(x, *table(positions, self.inv_freq.double()))


# Partial rotation ------------------------------------------------------------------------------


@fault("PART-1", "lanes", PARTIAL)
def every_lane_rotated(x, positions):
    return turn(x, *table(positions))


@fault("PART-1", "other end", PARTIAL)
def last_lanes_for_the_first(x, positions):
    return torch.cat([x[..., :8], turn(x[..., 8:], *table(positions, frequencies(8)))], -1)


@fault("PART-1", "other end", LAST)
def first_lanes_for_the_last(x, positions):
    return torch.cat([turn(x[..., :8], *table(positions, frequencies(8))), x[..., 8:]], -1)


@fault("PART-1", "lanes", rs.RotarySpec(DIM, layout="half", rotary_dim=8, attention_factor=1.2))
def pass_through_scaled(x, positions):
    cos, sin = table(positions, frequencies(8))
    return torch.cat([turn(x[..., :8], cos, sin), x[..., 8:]], -1) * 1.2


@fault("PART-1", "lanes", PARTIAL)
def pass_through_rounded(x, positions):
    kept = x[..., 8:].bfloat16().to(x.dtype)
    return torch.cat([turn(x[..., :8], *table(positions, frequencies(8))), kept], -1)
