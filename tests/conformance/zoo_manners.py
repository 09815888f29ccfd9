"""Faults beside the values: memory, gradients, the end of the range, bad input.

See `zoo_broken`.
"""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

import rotary_spec as rs
from tests.conformance.zoo_parts import (
    DIM,
    PARTIAL,
    Broken,
    consecutive,
    faults_into,
    frequencies,
    table,
    turn,
)

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)


# Purity ----------------------------------------------------------------------------------------


@fault("PURE-1", "input")
def writes_into_its_input(x, positions):
    x.copy_(turn(x, *table(positions)))
    return x


@fault("PURE-1", "positions")
def writes_into_its_positions(x, positions):
    y = turn(x, *table(positions))
    positions += x.shape[2]
    return y


@fault("PURE-2", "strided", framework="numpy")
def memory_taken_for_contiguous(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(0, DIM, 2) / DIM))
    flat = x.ravel("K").reshape(x.shape)
    a, b = np.split(flat.astype(np.float32), 2, axis=-1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


@fault("PURE-2", "strided", PARTIAL)
def pass_through_taken_for_contiguous(x, positions):
    dense = torch.as_strided(x, x.shape, torch.empty(x.shape).stride())
    cos, sin = table(positions, frequencies(8))
    return torch.cat([turn(x[..., :8], cos, sin), dense[..., 8:]], -1)


@fault("PURE-2", "strided")
def only_the_last_stride_looked_at(x, positions):
    """A kernel that copies if the last stride is not 1, and takes the others for granted."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    dense = torch.empty(x.shape).stride()
    return turn(torch.as_strided(x, x.shape, dense), *table(positions))


@fault("PURE-3", "float32 result")
def result_promoted(x, positions):
    """A float32 table times a 16-bit input is float32."""
    return turn(x.float() if x.dtype.itemsize < 4 else x, *table(positions))


# Gradient --------------------------------------------------------------------------------------


@fault("GRAD-1", "does not reach the input")
def gradient_severed(x, positions):
    return turn(x.detach(), *table(positions))


@fault("GRAD-1", "does not reach the input", framework="jax", dtypes=("float32",))
def gradient_stopped(x, positions):
    return _jax_turn(jax.lax.stop_gradient(x), positions)


class _BackwardForwards(torch.autograd.Function):
    """Its own backward, which forgets to turn the other way."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    def backward(ctx, g):
        return turn(g, *ctx.saved_tensors), None, None


@fault("GRAD-1", "backward")
def backward_turns_forwards(x, positions):
    return _BackwardForwards.apply(x, *table(positions))


@partial(jax.jit, static_argnames="base")
def _jax_turn(x, positions, base=10_000.0):
    # JAX without x64 has no float64 and no exact angle: this is right up to float32 angles.
    angle = positions[..., None] * (base ** (-np.arange(0, DIM, 2) / DIM)).astype(np.float32)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


@jax.custom_vjp
def _backward_with_a_written_base(x, positions):
    return _jax_turn(x, positions, 500_000.0)


_backward_with_a_written_base.defvjp(
    lambda x, positions: (_backward_with_a_written_base(x, positions), positions),
    lambda positions, g: (_jax_turn(g, -positions), None),
)


@fault("GRAD-1", "base", rs.RotarySpec(DIM, 5e5, "half"), "jax", dtypes=("float32",))
def backward_with_a_written_base(x, positions):
    """ggml's backward kept base 10000 when the forward pass learned another."""
    return _backward_with_a_written_base(x, positions)


# The end of the range, and bad input -----------------------------------------------------------


@fault("POS-3", "without an error", max_position=4096)
def unrotated_past_the_end(x, positions):
    """flash-attn's table read with mask: cos 1 and sin 0 where the table ends."""
    cos, sin = table(torch.where(positions < 4096, positions, 0))
    return turn(x, cos, sin)


@lru_cache
def _table_of_4096():
    return table(consecutive(0, 4096))


@fault("POS-4", "negative positions", max_position=4096)
def negative_ids_index_the_end_of_the_table(x, positions):
    return turn(x, *(t[positions] for t in _table_of_4096()))


@fault("BAD-1", "without a partner")
def odd_lane_dropped(x, positions):
    d = x.shape[-1] // 2
    a, b = x[..., :d].float(), x[..., d : 2 * d].float()
    cos, sin = (t[..., :d] for t in table(positions))
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


@fault("BAD-2", "3 position ids for 4 rows")
def missing_ids_made_up(x, positions):
    missing = x.shape[2] - len(positions)
    return turn(x, *table(torch.cat([positions, positions[-1:].repeat(max(missing, 0))])))
