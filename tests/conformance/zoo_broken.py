"""Rotary embeddings with one known fault each, and the clause that must name it.

Each is the shortest code that has the fault; the rest of it is right. Angles are float64, so that
nothing but the fault can be seen. References are to bug classes seen in real libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import torch

import rotary_spec as rs
from rotary_spec_conformance import Target
from rotary_spec_conformance.inference import framework_named

DIM = 16
HALF = rs.RotarySpec(head_dim=DIM, layout="half")
INTERLEAVED = rs.RotarySpec(head_dim=DIM)
PARTIAL = rs.RotarySpec(head_dim=DIM, layout="half", rotary_dim=8)
LAST = rs.RotarySpec(head_dim=DIM, layout="half", rotary_dim=8, rotary_start=8)
LINEAR = rs.RotarySpec(head_dim=DIM, layout="half", schedule=rs.Linear(factor=4))
LLAMA3 = rs.RotarySpec(
    head_dim=DIM, base=500_000.0, layout="half", schedule=rs.Llama3(8.0, 1.0, 4.0, 8192)
)
SCALED = rs.RotarySpec(head_dim=DIM, layout="half", attention_factor=1.2)


@dataclass(frozen=True)
class Broken:
    """A faulty implementation.

    ``says`` is what a message of the clause must contain, so that a reader learns what is wrong.
    """

    name: str
    clause: str
    says: str
    target: Target
    spec: rs.RotarySpec


BROKEN: dict[str, Broken] = {}


def fault(
    clause: str,
    says: str,
    spec: rs.RotarySpec = HALF,
    framework: str = "torch",
    **declared: Any,
) -> Callable[[Any], Any]:
    """Enter a function ``f(x, positions)``, or a class whose instances are called so."""

    def enter(implementation: Any) -> Any:
        name, fresh = implementation.__name__, isinstance(implementation, type)
        target = Target(
            name=name,
            build=implementation if fresh else lambda: implementation,
            framework=framework_named(framework),
            head_dim=spec.head_dim,
            fresh=fresh,
            **declared,
        )
        assert name not in BROKEN
        BROKEN[name] = Broken(name, clause, says, target, spec)
        return implementation

    return enter


# What is right, in PyTorch --------------------------------------------------------------------


def frequencies(dim: int = DIM, base: float = 10_000.0) -> torch.Tensor:
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def table(positions: torch.Tensor, theta: torch.Tensor | None = None) -> Any:
    angle = positions[..., None].double() * (frequencies() if theta is None else theta)
    return angle.cos().float(), angle.sin().float()


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def turn_neighbours(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (2i, 2i + 1)."""
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)


def consecutive(offset: int, count: int) -> torch.Tensor:
    return offset + torch.arange(count)


# Pairs ----------------------------------------------------------------------------------------


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


# Direction, origin, magnitude -----------------------------------------------------------------


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


# Frequencies ----------------------------------------------------------------------------------


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


# Precision ------------------------------------------------------------------------------------


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


# Batch, heads, rows ---------------------------------------------------------------------------


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


# Partial rotation -----------------------------------------------------------------------------


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


# State ----------------------------------------------------------------------------------------


@fault("STATE-1", "its key", positions="offset")
class CacheKeyedWithoutOffset:
    def __init__(self):
        self.cache = {}

    def __call__(self, x, offset):
        length = x.shape[2]
        if length not in self.cache:
            self.cache[length] = table(consecutive(offset, length))
        return turn(x, *self.cache[length])


@fault("STATE-1", "its key")
class CacheKeyedByLength:
    def __init__(self):
        self.length = self.table = None

    def __call__(self, x, positions):
        if self.length != len(positions):
            self.length, self.table = len(positions), table(positions)
        return turn(x, *self.table)


_TABLES: dict[int, Any] = {}


@fault("STATE-1", "its key")
def module_cache_keyed_by_length(x, positions):
    """A plain function cannot be built afresh: the suite has one instance, and it remembers."""
    if len(positions) not in _TABLES:
        _TABLES[len(positions)] = table(positions)
    return turn(x, *_TABLES[len(positions)])


@fault("STATE-1", "calls before")
class ResultOverwrittenByTheNextCall:
    """Every call of one shape writes into the same buffer, and hands it out."""

    def __init__(self):
        self.buffers = {}

    def __call__(self, x, positions):
        key = (x.shape, x.dtype)
        self.buffers.setdefault(key, torch.empty(x.shape, dtype=x.dtype))
        return self.buffers[key].copy_(turn(x.detach(), *table(positions)))


@fault("STATE-1", "calls before")
class CacheKeyedByTheArrayOfIds:
    """The ids are the same object, so their values are taken for the same."""

    def __init__(self):
        self.ids = self.table = None

    def __call__(self, x, positions):
        if self.ids is not positions:
            self.ids, self.table = positions, table(positions)
        return turn(x, *self.table)


@fault("STATE-2", "dtype", max_position=4096)
class TableKeepsTheDtypeOfItsFirstCall:
    def __init__(self):
        self.table = None

    def __call__(self, x, positions):
        last = int(positions.max())
        if self.table is None or last >= len(self.table[0]):
            rows = table(consecutive(0, last + 1))
            self.table = [t.to(x.dtype) for t in rows]
        cos, sin = (t[positions].float() for t in self.table)
        return turn(x, cos, sin)


_GROWING: list[Any] = []


@fault("STATE-2", "dtype", max_position=4096)
def module_table_keeps_the_dtype_of_its_first_call(x, positions):
    last = int(positions.max())
    if not _GROWING or last >= len(_GROWING[0]):
        _GROWING[:] = [t.to(x.dtype) for t in table(consecutive(0, last + 1))]
    cos, sin = (t[positions].float() for t in _GROWING)
    return turn(x, cos, sin)


_FIXED: list[Any] = []


@fault("ROT-4", "rounded to bfloat16", max_position=4096)
def module_table_made_once_in_the_first_dtype(x, positions):
    """Whether anybody sees it depends on the dtype of the very first call."""
    if not _FIXED:
        _FIXED[:] = [t.to(x.dtype) for t in table(consecutive(0, 4096))]
    cos, sin = (t[positions].float() for t in _FIXED)
    return turn(x, cos, sin)


@fault("STATE-2", "dtype")
class TableOfFloat32UsedForBfloat16:
    """A 16-bit call gives other values after a 32-bit call than it gives alone."""

    def __init__(self):
        self.dtype = None

    def __call__(self, x, positions):
        self.dtype = self.dtype or x.dtype
        work = torch.float32 if self.dtype == torch.float32 else x.dtype
        cos, sin = (t.to(work) for t in table(positions))
        a, b = x.to(work).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


@fault("STATE-3", "shared between instances")
class CacheSharedByTheClass:
    tables: ClassVar[dict[int, Any]] = {}

    def __call__(self, x, positions):
        if len(positions) not in self.tables:
            self.tables[len(positions)] = table(positions)
        return turn(x, *self.tables[len(positions)])


@fault("STATE-3", "shared between instances")
class DtypeSharedByTheClass:
    tables: ClassVar[dict[tuple[int, int], Any]] = {}

    def __call__(self, x, positions):
        key = (int(positions[0]), len(positions))
        if key not in self.tables:
            self.tables[key] = [t.to(x.dtype).float() for t in table(positions)]
        return turn(x, *self.tables[key])


@fault("STATE-4", "length")
class FrequenciesOfTheLongestCall:
    """Dynamic NTK that keeps the frequencies of the longest sequence it has seen."""

    def __init__(self):
        self.longest = 64

    def __call__(self, x, positions):
        self.longest = max(self.longest, x.shape[2])
        base = 10_000.0 * (self.longest / 64) ** (DIM / (DIM - 2))
        return turn(x, *table(positions, frequencies(base=base)))


@fault("STATE-1", "calls before")
class FrequenciesOfTheLargestPosition:
    """The same, by position: decoding changes what prefill is told afterwards."""

    def __init__(self):
        self.largest = 64

    def __call__(self, x, positions):
        self.largest = max(self.largest, int(positions.max()) + 1)
        base = 10_000.0 * (self.largest / 64) ** (DIM / (DIM - 2))
        return turn(x, *table(positions, frequencies(base=base)))


@fault("EQV-3", "place in the call")
def rows_beyond_a_block_left_out(x, positions):
    """A kernel that fills one block of 128 rows per launch."""
    y = turn(x, *table(positions))
    y[:, :, 128:] = x[:, :, 128:]
    return y


# Purity ---------------------------------------------------------------------------------------


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


# Gradient -------------------------------------------------------------------------------------


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


# The end of the range, and bad input ----------------------------------------------------------


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
