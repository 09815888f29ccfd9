"""Faults of rows: which position goes with which batch row, head and token, and q with k.

See `zoo_broken`.
"""

from __future__ import annotations

import numpy as np
import torch

from tests.conformance.zoo_parts import (
    DIM,
    Broken,
    consecutive,
    faults_into,
    table,
    turn,
)

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)


@fault("EQV-1", "batch")
def counter_runs_on_across_the_batch(x, positions):
    ids = positions + x.shape[2] * torch.arange(x.shape[0])[:, None, None]
    return turn(x, *table(ids))


@fault("EQV-1", "batch row 2", framework="numpy")
def last_batch_row_left_out(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(0, DIM, 2) / DIM))
    a, b = np.split(x.astype(np.float32), 2, axis=-1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    y = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
    y[2:] = x[2:]
    return y


@fault("EQV-2", "heads axis", positions="offset")
def rotated_over_the_heads_axis(x, offset):
    cos, sin = table(consecutive(offset, x.shape[1]))
    return turn(x, cos[:, None], sin[:, None])


@fault("EQV-2", "some heads only")
def head_0_only(x, positions):
    y = x.clone()
    y[:, :1] = turn(x[:, :1], *table(positions))
    return y


@fault("EQV-3", "place in the call")
def only_the_first_id_is_read(x, positions):
    return turn(x, *table(consecutive(int(positions[0]), x.shape[2])))


@fault("EQV-3", "place in the call")
def ends_tell_whether_ids_are_consecutive(x, positions):
    """A fast path without a gather, taken by mistake for ids that only begin and end like it."""
    first, count = int(positions[0]), len(positions)
    consecutive_ends = int(positions[-1]) - first == count - 1
    return turn(x, *table(consecutive(first, count) if consecutive_ends else positions))


@fault("EQV-3", "place in the call")
def packed_sequences_run_on(x, positions):
    """Ids that start anew within a call are counted on (Megatron, reset_position_ids)."""
    steps = torch.diff(positions, prepend=positions[:1])
    ids = positions[0] + steps.clamp(min=1).cumsum(0) - 1
    return turn(x, *table(torch.where((steps < 0).any(), ids, positions)))


@fault("EQV-3", "place in the call", positions="offset")
def offset_ignored(x, offset):
    return turn(x, *table(consecutive(0, x.shape[2])))


@fault("EQV-4", "one row")
def single_row_of_later_batches_is_zero(x, positions):
    """The launch grid counts heads, not batch times heads, when seq == 1 (MLX, 2026)."""
    y = turn(x, *table(positions))
    if x.shape[2] == 1:
        y[1:] = 0
    return y


@fault("EQV-4", "decoding")
def single_row_at_position_0(x, positions):
    """The decoding step forgets where it stands; prefill is right."""
    return turn(x, *table(positions * 0 if x.shape[2] == 1 else positions))


@fault("EQV-4", "decoding", positions="offset")
def single_row_one_too_far(x, offset):
    """In the decoding step the length is taken for the position."""
    return turn(x, *table(consecutive(offset + (x.shape[2] == 1), x.shape[2])))


@fault("POS-2", "ids", row_positions=True)
def ids_of_the_first_row_for_all(x, positions):
    return turn(x, *table(positions if positions.ndim == 1 else positions[0]))


@fault("POS-2", "where seq is 1", row_positions=True)
def ids_of_the_first_row_in_decoding(x, positions):
    if positions.ndim == 2:
        positions = positions[:1, None] if x.shape[2] == 1 else positions[:, None]
    return turn(x, *table(positions))


def _crossed_pair():
    def rotate(q, k, positions):
        cos, sin = table(positions)
        a, b = q.float().chunk(2, -1)
        heads = k.shape[1]
        c, d = k.float().chunk(2, -1)
        b = b.clone()
        b[:, :heads] = d  # the kernel reads q's second half from k
        return turn(torch.cat([a, b], -1), cos, sin), turn(torch.cat([c, d], -1), cos, sin)

    return rotate


@fault("EQV-5", "queries and keys", pair=_crossed_pair)
def query_reads_the_key(x, positions):
    return turn(x, *table(positions))


def _values_for_keys():
    return lambda q, k, positions: (turn(q, *table(positions)), k)


@fault("EQV-5", "queries and keys", pair=_values_for_keys)
def key_not_rotated(x, positions):
    return turn(x, *table(positions))


@fault("LIN-1", "not linear")
def normalises_first(x, positions):
    norm = x.float().norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return turn((x / norm).to(x.dtype), *table(positions))


@fault("LIN-1", "not linear")
def clips_large_values(x, positions):
    """As storage in an 8-bit float does; nothing that small features show."""
    return turn(x.clamp(-448, 448), *table(positions))


@fault("LIN-1", "not linear")
def adds_a_learned_bias(x, positions):
    return turn(x + 0.01, *table(positions))
