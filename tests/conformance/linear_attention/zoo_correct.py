"""Linear attentions that are right, each written in its own way.

They share no code with each other or with the library: what they agree on is Eq. 19.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import rotary_spec as rs

HALF = rs.RotarySpec(head_dim=16, layout="half")
INTERLEAVED = rs.RotarySpec(head_dim=16)


@dataclass(frozen=True)
class Correct:
    """An implementation, the spec that it meets, and what the check is told of it."""

    name: str
    implementation: Any
    spec: rs.RotarySpec
    options: dict[str, Any] = field(default_factory=dict)


CORRECT: dict[str, Correct] = {}


def meets(spec: rs.RotarySpec, **options: Any) -> Callable[[Any], Any]:
    """Enter a function, or a class without arguments, under its own name."""

    def enter(implementation: Any) -> Any:
        name = implementation.__name__
        assert name not in CORRECT
        if isinstance(implementation, type):
            options["factory"] = True
        CORRECT[name] = Correct(name, implementation, spec, options)
        return implementation

    return enter


# NumPy ----------------------------------------------------------------------------------------


@meets(HALF, framework="numpy", dtypes=("float32",))
def numpy_quadratic(q, k, v, positions):
    angle = positions[:, None] * 10000.0 ** (-np.arange(8) / 8)
    cos, sin = np.cos(angle), np.sin(angle)

    def features(x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    def turned(x):
        a, b = np.split(x, 2, -1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    phi_q, phi_k = features(q.astype(float)), features(k.astype(float))
    weights = np.tril(turned(phi_q) @ turned(phi_k).swapaxes(-1, -2))
    total = np.tril(phi_q @ phi_k.swapaxes(-1, -2)).sum(-1, keepdims=True)
    return (weights / total @ v).astype(v.dtype)


@meets(INTERLEAVED, framework="numpy", dtypes=("float32",))
class NumpyRecurrent:
    """Complex numbers, one token after the other."""

    turn = 10000.0 ** (-np.arange(8) / 8)

    def features(self, x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))).astype(np.float64)

    def complex(self, phi, position):
        return phi.reshape(*phi.shape[:-1], 8, 2) @ [1, 1j] * np.exp(1j * position * self.turn)

    def step(self, state, q, k, v, positions):
        outs = []
        for n, position in enumerate(positions):
            phi_q, phi_k = self.features(q[:, :, n]), self.features(k[:, :, n])
            outer = self.complex(phi_k, position)[..., None] * v[:, :, n, None]
            state = (outer, phi_k) if state is None else (state[0] + outer, state[1] + phi_k)
            numerator = (self.complex(phi_q, position).conj()[..., None] * state[0]).sum(-2).real
            outs.append(numerator / (phi_q * state[1]).sum(-1, keepdims=True))
        return state, np.stack(outs, -2).astype(v.dtype)

    def __call__(self, q, k, v, positions):
        return self.step(None, q, k, v, positions)[1]


# PyTorch --------------------------------------------------------------------------------------


def torch_rotary(x, positions):
    """Interleaved, by complex multiplication, angles in float64."""
    turn = 10000.0 ** (-torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
    angle = positions[:, None].double() * turn
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def torch_elu(x):
    return torch.nn.functional.elu(x) + 1


@meets(INTERLEAVED, dtypes=("float32", "bfloat16", "float16", "float64"))
def torch_cumulative_sum(q, k, v, positions):
    """Every prefix's state at once: sums of outer products."""
    phi_q, phi_k = torch_elu(q.float()), torch_elu(k.float())
    outer = torch_rotary(phi_k, positions).float()[..., None] * v.float()[..., None, :]
    state, normaliser = outer.cumsum(-3), phi_k.cumsum(-2)
    numerator = (torch_rotary(phi_q, positions).float()[..., None, :] @ state)[..., 0, :]
    return (numerator / (phi_q * normaliser).sum(-1, keepdim=True)).to(v.dtype)


@meets(INTERLEAVED, dtypes=("float32", "bfloat16"))
class TorchChunked(torch.nn.Module):
    """Chunks of 64, the state carried from one to the next, with a step of its own."""

    def __call__(self, q, k, v, positions):
        return self.step(None, q, k, v, positions)[1]

    def step(self, state, q, k, v, positions):
        state, outs = state or (0.0, 0.0), []
        for start in range(0, q.shape[-2], 64):
            part = slice(start, start + 64)
            state, out = self.chunk(state, q[:, :, part], k[:, :, part], v[:, :, part],
                                    positions[part])  # fmt: skip
            outs.append(out)
        return state, torch.cat(outs, -2)

    def chunk(self, state, q, k, v, positions):
        phi_q, phi_k = torch_elu(q.double()), torch_elu(k.double())
        turned_q, turned_k = torch_rotary(phi_q, positions), torch_rotary(phi_k, positions)
        inside = (turned_q @ turned_k.mT).tril() @ v.double()
        total = (phi_q * (state[1] + phi_k.cumsum(-2))).sum(-1, keepdim=True)
        before = turned_q @ state[0] if torch.is_tensor(state[0]) else 0.0
        after = (state[0] + turned_k.mT @ v.double(), state[1] + phi_k.sum(-2, keepdim=True))
        return after, ((before + inside) / total).to(v.dtype)


@meets(INTERLEAVED, dtypes=("float32", "bfloat16"))
def torch_features_in_the_dtype_of_q(q, k, v, positions):
    """Sums in float32, everything before them in 16 bits, as kernels with tensor cores do."""
    phi_q, phi_k = torch_elu(q), torch_elu(k)
    turned = [torch_rotary(x, positions).to(x.dtype) for x in (phi_q, phi_k)]
    weights = (turned[0] @ turned[1].mT).tril()
    total = (phi_q @ phi_k.mT).tril().sum(-1, keepdim=True, dtype=torch.float32)
    return ((weights @ v) / total).to(v.dtype)


@meets(INTERLEAVED, causal=False, feature_map="softmax", dtypes=("float32",))
def torch_bidirectional_softmax(q, k, v, positions):
    phi_q, phi_k = q.double().softmax(-1), (k.double() - k.max()).exp()
    state = torch_rotary(phi_k, positions).mT @ v.double()
    total = phi_q @ phi_k.sum(-2)[..., None]
    return (torch_rotary(phi_q, positions) @ state / total).to(v.dtype)


FAVOR = rs.favor(head_dim=8, features=16, seed=3)


@meets(INTERLEAVED, feature_map=FAVOR, head_dim=8, value_dim=6, dtypes=("float32",))
def torch_performer(q, k, v, positions):
    """More features than q and k have lanes, and values of a third width."""
    directions = torch.from_numpy(FAVOR.query.directions)

    def features(x):
        x = x.double() * 8**-0.25
        return torch.exp(x @ directions.T - (x * x).sum(-1, keepdim=True) / 2)

    phi_q, phi_k = features(q), features(k)
    weights = (torch_rotary(phi_q, positions) @ torch_rotary(phi_k, positions).mT).tril()
    return (weights @ v.double() / (phi_q @ phi_k.mT).tril().sum(-1, keepdim=True)).to(v.dtype)


@meets(INTERLEAVED, eps=1e-6, positions="offset", dtypes=("float32",))
def torch_offset_and_declared_eps(q, k, v, offset):
    positions = offset + torch.arange(q.shape[-2])
    phi_q, phi_k = torch_elu(q.double()), torch_elu(k.double())
    weights = (torch_rotary(phi_q, positions) @ torch_rotary(phi_k, positions).mT).tril()
    total = (phi_q @ phi_k.mT).tril().sum(-1, keepdim=True) + 1e-6
    return (weights @ v.double() / total).to(v.dtype)


@meets(INTERLEAVED, positions="arange", dtypes=("float32",))
def torch_implicit_positions(q, k, v, _):
    return torch_cumulative_sum(q, k, v, torch.arange(q.shape[-2]))


# JAX ------------------------------------------------------------------------------------------


@meets(HALF, dtypes=("float32",), quick=True)  # each length is compiled
@jax.jit
def jax_scan(q, k, v, positions):
    # Frequencies on the host, and shared angles: JAX has float32 only.
    angle = positions[:, None] * jnp.asarray(10000.0 ** (-np.arange(8) / 8), jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def turned(x):
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    phi_q, phi_k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1

    def step(state, token):
        turned_q, turned_k, own_q, own_k, value = token
        total = state[1] + own_k
        sums = state[0] + turned_k[..., None] * value[..., None, :]
        out = (turned_q[..., None] * sums).sum(-2) / (own_q * total).sum(-1, keepdims=True)
        return (sums, total), out

    tokens = [jnp.moveaxis(x, 2, 0) for x in (turned(phi_q), turned(phi_k), phi_q, phi_k, v)]
    start = (jnp.zeros((*k.shape[:2], k.shape[-1], v.shape[-1])), jnp.zeros_like(k[:, :, 0]))
    return jnp.moveaxis(jax.lax.scan(step, start, tokens)[1], 0, 2)
