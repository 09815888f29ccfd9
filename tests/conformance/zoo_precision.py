"""Faults of precision: positions, angles, tables and arithmetic in too few bits.

See `zoo_broken`.
"""

from __future__ import annotations

import numpy as np
import torch

from tests.conformance.zoo_parts import (
    DIM,
    Broken,
    faults_into,
    table,
    turn,
    turn_neighbours,
)

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)


@fault("PREC-1", "rounded to bfloat16")
def positions_in_bfloat16(x, positions):
    return turn(x, *table(positions.bfloat16()))


@fault("PREC-1", "rounded to float16")
def positions_in_float16(x, positions):
    return turn(x, *table(positions.half()))


@fault("PREC-2", "rounded to bfloat16")
def positions_in_the_dtype_of_x(x, positions):
    return turn(x, *table(positions.to(x.dtype)))


@fault("PREC-2", "positions or angles rounded", framework="numpy")
def angles_in_the_dtype_of_x(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(0, DIM, 2) / DIM))
    with np.errstate(over="ignore"):
        angle = angle.astype(x.dtype).astype(np.float64) % (2 * np.pi)
    a, b = np.split(x.astype(np.float32), 2, axis=-1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


@fault("ROT-4", "rounded to bfloat16")
def table_in_bfloat16(x, positions):
    cos, sin = table(positions)
    return turn(x, cos.bfloat16().float(), sin.bfloat16().float())


@fault("ROT-4", "rounded to float16")
def table_in_float16(x, positions):
    cos, sin = table(positions)
    return turn(x, cos.half().float(), sin.half().float())


@fault("PREC-1", "fast sine", framework="numpy")
def fast_sine(x, positions):
    """Range reduction with a 2 pi of 24 bits, good up to some 48,000 rad (``--use_fast_math``)."""
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(0, DIM, 2) / DIM))
    rounds = np.rint(angle / (2 * np.pi))
    two_pi = np.where(np.abs(angle) < 48_039, 2 * np.pi, float(np.float16(2 * np.pi)))
    angle = angle - rounds * two_pi
    a, b = np.split(x.astype(np.float32), 2, axis=-1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


@fault("PREC-1", "does a table end there")
def gather_clamps_at_the_end_of_the_table(x, positions):
    """As an index out of bounds does in JAX; the table's length was not declared."""
    return turn(x, *table(positions.clamp(max=4095)))


@fault("PREC-1", "other frequencies")
def positions_modulo_the_length_of_the_table(x, positions):
    return turn(x, *table(positions % 5000))


@fault("REL-1", "both move by the same distance")
def positions_grouped_beyond_a_window(x, positions):
    """As context extension by grouped attention does, which leaves the first 1024 as they are."""
    return turn(x, *table(torch.where(positions <= 1024, positions, positions // 4 * 4)))


@fault("PREC-1", "float32")
def ids_in_int16(x, positions):
    return turn(x, *table(positions.to(torch.int16)))


@fault("PREC-3", "rounded to bfloat16 before the sum")
def arithmetic_in_the_dtype_of_x(x, positions):
    """Hugging Face's way: cos and sin are cast to the activation dtype."""
    cos, sin = (t.to(x.dtype) for t in table(positions))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


@fault("ROT-1", "wrong in bfloat16")
def other_pairs_in_bfloat16(x, positions):
    """The fused kernel for 16 bits was written for the other layout."""
    rotate = turn_neighbours if x.dtype == torch.bfloat16 else turn
    return rotate(x, *table(positions))


@fault("ROT-1", "wrong in float64", framework="numpy")
def float64_through_float16(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(0, DIM, 2) / DIM))
    work = x.astype(np.float16 if x.dtype == np.float64 else np.float32)
    a, b = np.split(work.astype(np.float32), 2, axis=-1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
