"""Rotary embeddings that are right, each written in its own way, in the call shapes of the world.

They share no code with each other or with the library: what they agree on is the definition. Each
goes through `adapt`, as a user's would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

import rotary_spec as rs

INTERLEAVED = rs.RotarySpec(head_dim=16)
HALF = rs.RotarySpec(head_dim=16, layout="half")


@dataclass(frozen=True)
class Correct:
    """An implementation, the spec that it meets, and what `check` is told of it."""

    name: str
    implementation: Any
    spec: rs.RotarySpec
    options: dict[str, Any] = field(default_factory=dict)


CORRECT: dict[str, Correct] = {}


def meets(spec: rs.RotarySpec, **options: Any) -> Callable[[Any], Any]:
    """Enter a function, or a class without arguments, under its own name."""

    def enter(implementation: Any) -> Any:
        add(implementation.__name__, implementation, spec, **options)
        return implementation

    return enter


def add(name: str, implementation: Any, spec: rs.RotarySpec, **options: Any) -> None:
    assert name not in CORRECT
    if isinstance(implementation, type):
        options["factory"] = True
    CORRECT[name] = Correct(name, implementation, spec, options)


# NumPy ----------------------------------------------------------------------------------------


@meets(INTERLEAVED)
def numpy_pair_by_pair(x, positions):
    y = np.empty_like(x)
    wide = x.astype(np.float64)
    for i in range(x.shape[-1] // 2):
        angle = positions * 10_000.0 ** (-2 * i / x.shape[-1])
        a, b = wide[..., 2 * i], wide[..., 2 * i + 1]
        y[..., 2 * i] = a * np.cos(angle) - b * np.sin(angle)
        y[..., 2 * i + 1] = b * np.cos(angle) + a * np.sin(angle)
    return y


@meets(INTERLEAVED)
def numpy_matrices(x, positions):
    d = x.shape[-1]
    matrix = np.zeros((len(positions), d, d))
    for i in range(d // 2):
        angle = positions * 10_000.0 ** (-2 * i / d)
        c, s = np.cos(angle), np.sin(angle)
        block = np.moveaxis(np.array([[c, -s], [s, c]]), -1, 0)
        matrix[:, 2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    return np.einsum("sij,bhsj->bhsi", matrix, x.astype(np.float64)).astype(x.dtype)


@meets(INTERLEAVED)
def numpy_complex(x, positions):
    theta = 10_000.0 ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
    cis = np.exp(1j * np.multiply.outer(positions, theta)).astype(np.complex64)
    pairs = np.ascontiguousarray(x, dtype=np.float32).view(np.complex64)
    return (pairs * cis).view(np.float32).astype(x.dtype)


@meets(HALF)
def numpy_rotate_half(x, positions):
    inv_freq = 1.0 / 10_000.0 ** (np.arange(0, x.shape[-1], 2) / x.shape[-1])
    angle = np.concatenate([np.multiply.outer(positions, inv_freq)] * 2, -1)
    turned = np.concatenate(np.split(x.astype(np.float64), 2, -1)[::-1], -1)
    turned[..., : x.shape[-1] // 2] *= -1
    return (x * np.cos(angle) + turned * np.sin(angle)).astype(x.dtype)


@meets(HALF)
def numpy_float32_throughout(x, positions):
    inv_freq = np.float32(10_000) ** -(np.arange(0, 16, 2, dtype=np.float32) / np.float32(16))
    angle = positions[:, None].astype(np.float32) * inv_freq
    a, b = np.split(x.astype(np.float32), 2, -1)
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


@meets(HALF)
def numpy_exponential_of_logarithm(x, positions):
    step = np.float32(-math.log(10_000) * 2 / 16)
    angle = positions[:, None].astype(np.float32) * np.exp(step * np.arange(8, dtype=np.float32))
    a, b = np.split(x.astype(np.float32), 2, -1)
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


@meets(INTERLEAVED)
def numpy_recurrence_in_float64(x, positions):
    """As ggml does in float32, which loses 2i more roundoffs than the bound of float32 angles."""
    y, wide = np.empty_like(x), x.astype(np.float64)
    angle, ratio = positions.astype(np.float64), 10_000.0 ** (-2 / 16)
    for i in range(0, 16, 2):
        y[..., i] = wide[..., i] * np.cos(angle) - wide[..., i + 1] * np.sin(angle)
        y[..., i + 1] = wide[..., i] * np.sin(angle) + wide[..., i + 1] * np.cos(angle)
        angle = angle * ratio
    return y


_ROWS = np.multiply.outer(np.arange(2048), 10_000.0 ** (-np.arange(8) / 8))
_TABLE = np.cos(_ROWS).astype(np.float32), np.sin(_ROWS).astype(np.float32)


@meets(HALF, max_position=2048)
def numpy_table_that_checks_its_ends(x, positions):
    if positions.min() < 0 or positions.max() >= 2048:
        raise IndexError("positions outside 0 .. 2047")
    c, s = (t[positions] for t in _TABLE)
    a, b = np.split(x.astype(np.float32), 2, -1)
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


@meets(HALF, max_position=2048)
def numpy_table_without_negative_ids(x, positions):
    """Negative ids read the table's end: a note (POS-4), since nobody has to promise them."""
    c, s = (t[positions] for t in _TABLE)
    a, b = np.split(x.astype(np.float32), 2, -1)
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


@meets(HALF, order="bshd")
def numpy_sequence_before_heads(x, positions):
    theta = 10_000.0 ** (-np.arange(8) / 8)
    angle = (positions[:, None] * theta)[:, None, :]
    a, b = np.split(x.astype(np.float64), 2, -1)
    rotated = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    return np.concatenate(rotated, -1).astype(x.dtype)


@meets(rs.RotarySpec(head_dim=16, rotary_dim=8))
def numpy_first_lanes(x, positions):
    y = x.copy()
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(4) / 4))
    a, b = (x[..., k:8:2].astype(np.float64) for k in (0, 1))
    y[..., 0:8:2] = a * np.cos(angle) - b * np.sin(angle)
    y[..., 1:8:2] = b * np.cos(angle) + a * np.sin(angle)
    return y


@meets(rs.RotarySpec(head_dim=16, layout="half", rotary_dim=8, rotary_start=8))
def numpy_last_lanes(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(4) / 4))
    kept, a, b = x[..., :8], x[..., 8:12].astype(np.float64), x[..., 12:].astype(np.float64)
    first = (a * np.cos(angle) - b * np.sin(angle)).astype(x.dtype)
    second = (b * np.cos(angle) + a * np.sin(angle)).astype(x.dtype)
    return np.concatenate([kept, first, second], -1)


@meets(rs.RotarySpec(head_dim=16, rotary_dim=6, rotary_start=4))
def numpy_middle_lanes(x, positions):
    y = x.copy()
    for i, lane in enumerate(range(4, 10, 2)):
        angle = positions * 10_000.0 ** (-2 * i / 6)
        a, b = x[..., lane].astype(np.float64), x[..., lane + 1].astype(np.float64)
        y[..., lane] = a * np.cos(angle) - b * np.sin(angle)
        y[..., lane + 1] = b * np.cos(angle) + a * np.sin(angle)
    return y


@meets(rs.RotarySpec(head_dim=16, layout="half", schedule=rs.Linear(factor=4)))
def numpy_positions_divided(x, positions):
    """Position interpolation on the positions, as Megatron and MLX have it."""
    angle = np.multiply.outer(positions / 4, 10_000.0 ** (-np.arange(8) / 8))
    a, b = np.split(x.astype(np.float64), 2, -1)
    rotated = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    return np.concatenate(rotated, -1).astype(x.dtype)


@meets(rs.RotarySpec(16, 500_000.0, "half", schedule=rs.Llama3(8.0, 1.0, 4.0, 8192)))
def numpy_llama3(x, positions):
    """After Meta's Llama 3.1 code, with its wavelengths."""
    frequencies = []
    for i in range(8):
        theta = 500_000.0 ** (-2 * i / 16)
        wavelength = 2 * math.pi / theta
        if wavelength < 8192 / 4:
            frequencies.append(theta)
        elif wavelength > 8192 / 1:
            frequencies.append(theta / 8)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            frequencies.append((1 - smooth) * theta / 8 + smooth * theta)
    angle = np.multiply.outer(positions, frequencies)
    a, b = np.split(x.astype(np.float64), 2, -1)
    rotated = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    return np.concatenate(rotated, -1).astype(x.dtype)


@meets(rs.RotarySpec(head_dim=16, layout="half", attention_factor=1.2))
def numpy_attention_factor_on_the_result(x, positions):
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(8) / 8))
    a, b = np.split(x.astype(np.float64), 2, -1)
    rotated = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    return (1.2 * np.concatenate(rotated, -1)).astype(x.dtype)


@meets(rs.RotarySpec(head_dim=16, inverse=True))
def numpy_conjugate(x, positions):
    theta = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    cis = np.exp(-1j * np.multiply.outer(positions, theta))
    pairs = x[..., 0::2].astype(np.float64) + 1j * x[..., 1::2].astype(np.float64)
    y = pairs * cis
    return np.stack([y.real, y.imag], -1).reshape(x.shape).astype(x.dtype)


@meets(HALF)
def numpy_with_half_tables(x, cos, sin):
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@meets(HALF)
def numpy_with_full_tables(x, cos, sin):
    a, b = np.split(x, 2, -1)
    return x * cos + np.concatenate([-b, a], -1) * sin


@meets(HALF)
def numpy_offset(x, offset=0):
    positions = np.arange(offset, offset + x.shape[-2])
    angle = np.multiply.outer(positions, 10_000.0 ** (-np.arange(8) / 8))
    a, b = np.split(x.astype(np.float64), 2, -1)
    rotated = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    return np.concatenate(rotated, -1).astype(x.dtype)


@meets(INTERLEAVED)
def numpy_arange(x):
    theta = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    cis = np.exp(1j * np.multiply.outer(np.arange(x.shape[-2]), theta))
    y = (x[..., 0::2].astype(np.float64) + 1j * x[..., 1::2]) * cis
    return np.stack([y.real, y.imag], -1).reshape(x.shape).astype(x.dtype)


# PyTorch --------------------------------------------------------------------------------------


def rotate_half(x):
    x1 = x[..., : x.shape[-1] // 2]
    x2 = x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
    """As 186 models of transformers define it."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return (q * cos) + (rotate_half(q) * sin), (k * cos) + (rotate_half(k) * sin)


class LlamaRotary(nn.Module):
    """Its tables for `apply_rotary_pos_emb`: float32 angles, cast to the activations' dtype."""

    def __init__(self, dim=16, base=10_000.0):
        super().__init__()
        inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, x, position_ids):
        freqs = position_ids[..., None].float() * self.inv_freq
        emb = torch.cat((freqs, freqs), dim=-1)
        return emb.cos().to(x.dtype), emb.sin().to(x.dtype)


add("torch_module_and_apply", LlamaRotary, HALF, apply=apply_rotary_pos_emb)
add("torch_module_instance_and_apply", LlamaRotary(), HALF, apply=apply_rotary_pos_emb)
add("torch_apply_alone", apply_rotary_pos_emb, HALF)
add("torch_apply_alone_bshd", apply_rotary_pos_emb, HALF, order="bshd")


@meets(INTERLEAVED)
def torch_meta(xq: torch.Tensor, xk: torch.Tensor, freqs_cis: torch.Tensor):
    """As Meta's Llama has it: (batch, seq, heads, head_dim), one complex table for both."""
    xq_ = torch.view_as_complex(xq.float().reshape(*xq.shape[:-1], -1, 2))
    xk_ = torch.view_as_complex(xk.float().reshape(*xk.shape[:-1], -1, 2))
    freqs_cis = freqs_cis.view(1, xq_.shape[1], 1, xq_.shape[-1])
    xq_out = torch.view_as_real(xq_ * freqs_cis).flatten(3)
    xk_out = torch.view_as_real(xk_ * freqs_cis).flatten(3)
    return xq_out.type_as(xq), xk_out.type_as(xk)


@meets(INTERLEAVED)
def torch_rotate_every_two(x, positions):
    """GPT-J's words for the paper's layout."""
    inv_freq = 10_000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    angle = torch.einsum("i,j->ij", positions.double(), inv_freq).repeat_interleave(2, -1)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return (x * angle.cos().float() + turned * angle.sin().float()).to(x.dtype)


@meets(INTERLEAVED)
class TorchComplexModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = 10_000.0 ** (-torch.arange(0, 16, 2).double() / 16)

    def forward(self, x: torch.Tensor, input_pos: torch.Tensor):
        angle = torch.outer(input_pos.double(), self.theta)
        cis = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * cis).flatten(-2).to(x.dtype)


@meets(HALF)
class TorchGrowingTable(nn.Module):
    """A float32 table that grows when it must, and is cut to the rows of the call."""

    def __init__(self):
        super().__init__()
        self.length = 0

    def forward(self, x, offset=0):
        end = offset + x.shape[-2]
        if end > self.length:
            self.length = max(end, 2 * self.length)
            angle = torch.outer(torch.arange(self.length).float(), 10_000 ** (-torch.arange(8) / 8))
            self.cos, self.sin = angle.cos(), angle.sin()
        cos, sin = self.cos[offset:end], self.sin[offset:end]
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


CORRECT["TorchGrowingTable"].options["max_position"] = 2**14  # a table of 2**31 rows is none


@meets(HALF)
class TorchCacheKeyedRightly:
    def __init__(self):
        self.tables = {}

    def __call__(self, x, offset):
        key = (offset, x.shape[-2], x.dtype)
        if key not in self.tables:
            positions = torch.arange(offset, offset + x.shape[-2], dtype=torch.float64)
            angle = positions[:, None] * 10_000.0 ** (-torch.arange(8).double() / 8)
            self.tables[key] = angle.cos().float(), angle.sin().float()
        cos, sin = self.tables[key]
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class _OwnBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, angle):
        ctx.save_for_backward(angle)
        cis = torch.polar(torch.ones_like(angle), angle)
        a, b = x.double().chunk(2, -1)
        y = torch.complex(a, b) * cis
        return torch.cat([y.real, y.imag], -1).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return _OwnBackward.apply(g, -ctx.saved_tensors[0]), None


@meets(HALF)
def torch_own_backward(x, positions):
    theta = 10_000.0 ** (-torch.arange(8).double() / 8)
    return _OwnBackward.apply(x, torch.outer(positions.double(), theta))


@meets(rs.RotarySpec(head_dim=16, output_layout="half"))
def torch_interleaved_in_half_out(x, positions):
    """As the DeepSeek-V3 family has it in transformers."""
    theta = 10_000.0 ** (-torch.arange(8).double() / 8)
    angle = torch.outer(positions.double(), theta)
    angle = torch.cat([angle, angle], -1)
    x = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    return (x * angle.cos().float() + rotate_half(x) * angle.sin().float()).to(x.dtype)


@meets(HALF, in_place=True)
def torch_in_place(x, positions):
    theta = 10_000.0 ** (-torch.arange(8).double() / 8)
    angle = torch.outer(positions.double(), theta)
    a, b = x.double().chunk(2, -1)
    rotated = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    return x.copy_(torch.cat(rotated, -1))


@meets(HALF, dtypes=("bfloat16",))
def torch_bfloat16_only(x, positions):
    if x.dtype != torch.bfloat16:
        raise TypeError(f"bfloat16 only, got {x.dtype}")
    angle = torch.outer(positions.float(), 10_000 ** (-torch.arange(8) / 8))
    a, b = x.float().chunk(2, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).bfloat16()


@meets(HALF)
def torch_arithmetic_in_the_dtype_of_x(x, positions):
    """Angles in float32, cos and sin rounded to the activations: PREC-3 is a note."""
    angle = torch.outer(positions.float(), 10_000 ** (-torch.arange(8) / 8))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


@meets(rs.RotarySpec(head_dim=64, base=1e6, layout="half"), dtypes=("float32",))
@torch.compile(backend="aot_eager", dynamic=True)
def torch_compiled(x: torch.Tensor, positions: torch.Tensor):
    theta = 1e6 ** (-torch.arange(32, dtype=torch.float64) / 32)
    angle = positions[:, None] * theta
    a, b = x.double().chunk(2, -1)
    rotated = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    return torch.cat(rotated, -1).to(x.dtype)


# JAX ------------------------------------------------------------------------------------------


@meets(HALF)
@jax.jit
def jax_jitted(x: jax.Array, positions: jax.Array):
    angle = positions[:, None] * jnp.asarray(10_000.0 ** (-np.arange(8) / 8), jnp.float32)
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


@meets(INTERLEAVED, dtypes=("float32",))
@jax.jit
def jax_complex_row_by_row(x: jax.Array, positions: jax.Array):
    theta = jnp.asarray(10_000.0 ** (-np.arange(8) / 8), jnp.float32)

    def one_row(row, position):
        pairs = jax.lax.complex(row[0::2], row[1::2]) * jnp.exp(1j * position * theta)
        return jnp.stack([pairs.real, pairs.imag], -1).ravel()

    rows = jax.vmap(jax.vmap(jax.vmap(one_row), (0, None)), (0, None))
    return rows(x.astype(jnp.float32), positions).astype(x.dtype)


# MLX, where it is installed -------------------------------------------------------------------

try:
    import mlx.core as mx
except ImportError:
    pass
else:

    @meets(HALF, framework="mlx")
    def mlx_fast_rope(x, offset=0):
        return mx.fast.rope(x, 16, traditional=False, base=10_000.0, scale=1.0, offset=offset)

    @meets(INTERLEAVED, framework="mlx")
    def mlx_fast_rope_traditional(x, offset=0):
        return mx.fast.rope(x, 16, traditional=True, base=10_000.0, scale=1.0, offset=offset)
