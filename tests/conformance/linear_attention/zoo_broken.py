"""Linear attentions with one known fault each, and the clause that must name it.

Each is right but for its fault: features and angles are float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import rotary_spec as rs
from tests.conformance.linear_attention.zoo_correct import torch_elu, torch_rotary

SPEC = rs.RotarySpec(head_dim=16)


@dataclass(frozen=True)
class Broken:
    """A faulty implementation; ``says`` is what a message of the clause must contain."""

    name: str
    clause: str
    says: str
    implementation: Any
    options: dict[str, Any] = field(default_factory=dict)


BROKEN: dict[str, Broken] = {}


def fault(clause: str, says: str, **options: Any) -> Callable[[Any], Any]:
    """Enter a function ``f(q, k, v, positions)``, or a class whose instances are called so."""

    def enter(implementation: Any) -> Any:
        name = implementation.__name__
        assert name not in BROKEN
        narrow = clause in ("LATT-1", "LATT-10", "LATT-15", "LATT-16")
        dtypes = ("float32", "bfloat16") if narrow else ("float32",)
        given = {"framework": "torch", "dtypes": dtypes, **options}
        if isinstance(implementation, type):
            given["factory"] = True
        BROKEN[name] = Broken(name, clause, says, implementation, given)
        return implementation

    return enter


# What is right ----------------------------------------------------------------------------------


def features(q, k):
    return torch_elu(q.double()), torch_elu(k.double())


def turned(q, k, positions):
    return torch_rotary(q, positions), torch_rotary(k, positions)


def weigh(q, k):
    return (q @ k.mT).tril()


def attend(q, k, v, positions, *, numerator=None, denominator=None):
    """Eq. 19, with a numerator or denominator of one's own."""
    phi_q, phi_k = features(q, k)
    if numerator is None:
        numerator = weigh(*turned(phi_q, phi_k, positions))
    if denominator is None:
        denominator = weigh(phi_q, phi_k).sum(-1)
    return (numerator @ v.double() / denominator[..., None]).to(v.dtype)


# Form, linearity, independence ------------------------------------------------------------------


@fault("LATT-1", "gave float32")
def result_in_float32(q, k, v, positions):
    return attend(q, k, v.float(), positions)


@fault("LATT-1", "not finite")
def first_row_divided_by_nothing(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    before = weigh(phi_q, phi_k) - (phi_q * phi_k).sum(-1).diag_embed()
    return attend(q, k, v, positions, denominator=before.sum(-1))


@fault("LATT-2", "not linear in the values")
def values_normalised(q, k, v, positions):
    return attend(q, k, torch.nn.functional.layer_norm(v, v.shape[-1:]), positions)


@fault("LATT-3", "sums taken over heads")
def denominator_summed_over_heads(q, k, v, positions):
    total = weigh(*features(q, k)).sum(-1)
    return attend(q, k, v, positions, denominator=total.mean(1, keepdim=True))


# Which keys -------------------------------------------------------------------------------------


@fault("LATT-4", "sees later keys")
def mask_forgotten(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    turned_q, turned_k = turned(phi_q, phi_k, positions)
    weights, products = turned_q @ turned_k.mT, phi_q @ phi_k.mT
    return attend(q, k, v, positions, numerator=weights, denominator=products.sum(-1))


@fault("LATT-4", "denominator summed over the whole sequence")
def denominator_over_the_whole_sequence(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    return attend(q, k, v, positions, denominator=(phi_q @ phi_k.mT).sum(-1))


@fault("LATT-4", "does not see the key of its own token")
def own_token_left_out(q, k, v, positions):
    weights = weigh(*turned(*features(q, k), positions))
    return attend(q, k, v, positions, numerator=weights.tril(-1))


@fault("LATT-4", "is it causal?", causal=False)
def causal_where_it_should_not_be(q, k, v, positions):
    return attend(q, k, v, positions)


# Features ---------------------------------------------------------------------------------------


def attend_to_features(phi_q, phi_k, v, positions):
    numerator = weigh(*turned(phi_q, phi_k, positions))
    return (numerator @ v.double() / weigh(phi_q, phi_k).sum(-1, keepdim=True)).to(v.dtype)


@fault("LATT-5", "the feature map is relu, not elu+1")
def relu_features(q, k, v, positions):
    # A tenth of a millionth keeps the denominator of a row without features from being 0.
    return attend_to_features(q.double().relu() + 1e-7, k.double().relu() + 1e-7, v, positions)


@fault("LATT-5", "the feature map is softmax or exp of q, exp of k, not elu+1")
def shen_features(q, k, v, positions):
    return attend_to_features(q.double().softmax(-1), k.double().exp(), v, positions)


@fault("LATT-5", "the feature map is elu+1, q / sqrt(dim), not elu+1")
def scaled_queries(q, k, v, positions):
    return attend(q.double() / 4, k, v, positions)


# Numerator --------------------------------------------------------------------------------------


@fault("LATT-6", "absolute positions")
def sinusoids_added_to_features(q, k, v, positions):
    ones = torch.ones(len(positions), 16, dtype=torch.float64)
    wave = torch_rotary(ones, positions)
    phi_q, phi_k = features(q, k)
    return attend(q, k, v, positions, numerator=weigh(phi_q + wave, phi_k + wave))


@fault("LATT-6", "absolute positions")
def queries_not_rotated(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    return attend(q, k, v, positions, numerator=weigh(phi_q, torch_rotary(phi_k, positions)))


@fault("LATT-7", "keys not rotated")
def keys_not_rotated(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    return attend(q, k, v, positions, numerator=weigh(torch_rotary(phi_q, positions), phi_k))


@fault("LATT-7", "rotated before the feature map")
def rotated_before_the_feature_map(q, k, v, positions):
    return attend(*(x.to(q.dtype) for x in turned(q, k, positions)), v, positions * 0)


@fault("LATT-7", "not rotated")
def not_rotated(q, k, v, positions):
    return attend(q, k, v, positions * 0)


@fault("LATT-7", "in the half layout")
def the_other_layout(q, k, v, positions):
    half = rs.RotarySpec(head_dim=16, layout="half")
    phi_q, phi_k = (rs.rotate(x, positions, half) for x in features(q, k))
    return attend(q, k, v, positions, numerator=weigh(phi_q, phi_k))


@fault("LATT-7", "rotated backwards")
def rotated_backwards(q, k, v, positions):
    return attend(q, k, v, -positions)


# Denominator ------------------------------------------------------------------------------------


@fault("LATT-8", "Σ of the numerator's own, rotated weights")
def denominator_rotated(q, k, v, positions):
    total = weigh(*turned(*features(q, k), positions)).sum(-1)
    return attend(q, k, v, positions, denominator=total)


@fault("LATT-8", "Σ of the absolute rotated weights")
def denominator_of_absolute_weights(q, k, v, positions):
    total = weigh(*turned(*features(q, k), positions)).abs().sum(-1)
    return attend(q, k, v, positions, denominator=total)


@fault("LATT-8", "absolute value")
def absolute_denominator(q, k, v, positions):
    total = weigh(*turned(*features(q, k), positions)).sum(-1)
    return attend(q, k, v, positions, denominator=total.abs())


@fault("LATT-8", "the denominator is: none")
def no_denominator(q, k, v, positions):
    ones = torch.ones(q.shape[-2], dtype=torch.float64)
    return attend(q, k, v, positions, denominator=ones)


@fault("LATT-8", "number of keys")
def mean_over_keys(q, k, v, positions):
    count = torch.arange(1, q.shape[-2] + 1, dtype=torch.float64)
    return attend(q, k, v, positions, denominator=count)


@fault("LATT-9", "is an eps of 1e-06 added")
def eps_in_the_denominator(q, k, v, positions):
    total = weigh(*features(q, k)).sum(-1) + 1e-6
    return attend(q, k, v, positions, denominator=total)


@fault("LATT-9", "denominators of about")
def denominator_clamped(q, k, v, positions):
    total = weigh(*features(q, k)).sum(-1).clamp(min=1e-4)
    return attend(q, k, v, positions, denominator=total)


# The result -------------------------------------------------------------------------------------


@fault("LATT-10", "is there other code for it?")
def other_code_for_16_bits(q, k, v, positions):
    return attend(q, k, v, positions if q.dtype == torch.float32 else positions * 0)


@fault("LATT-11", "wrong for longer ones")
def normaliser_of_the_chunk_only(q, k, v, positions):
    products = weigh(*features(q, k))
    rows = torch.arange(q.shape[-2]) // 64
    own = products * (rows[:, None] == rows)
    return attend(q, k, v, positions, denominator=own.sum(-1))


@fault("LATT-11", "raised ValueError")
def whole_chunks_only(q, k, v, positions):
    if q.shape[-2] > 64 and q.shape[-2] % 64:
        raise ValueError("the chunk does not divide the length")
    return attend(q, k, v, positions)


class Remembering:
    """All tokens seen so far as the state, which is right if wasteful."""

    def __call__(self, q, k, v, positions):
        return attend(q, k, v, positions)

    def step(self, state, q, k, v, positions):
        tokens = (q, k, v, self.kept(state, positions))
        if state is not None:
            tokens = tuple(torch.cat(pair, -2 if pair[0].ndim > 1 else 0)
                           for pair in zip(state, tokens, strict=True))  # fmt: skip
        return tokens, self.whole(*tokens)[:, :, -q.shape[-2] :]

    def kept(self, state, positions):
        return positions

    def whole(self, q, k, v, positions):
        return attend(q, k, v, positions)


@fault("LATT-12", "every step stands at position 0")
class StepsAtPositionZero(Remembering):
    def kept(self, state, positions):
        return positions if state is None else positions * 0


@fault("LATT-12", "does the state keep its sum of keys")
class StateOfRotatedKeysOnly(Remembering):
    def whole(self, q, k, v, positions):
        return denominator_rotated(q, k, v, positions)


# Precision --------------------------------------------------------------------------------------


@fault("LATT-13", "16-bit dtype")
def positions_in_bfloat16(q, k, v, positions):
    return attend(q, k, v, positions.to(torch.bfloat16))


@fault("LATT-14", "angles are computed in float32")
def angles_in_float32(q, k, v, positions):
    turn = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    angle = positions[:, None].float() * turn

    def rotated(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (8, 2)))
        return torch.view_as_real(pairs * torch.polar(torch.ones(()), angle)).flatten(-2)

    phi_q, phi_k = features(q, k)
    return attend(q, k, v, positions, numerator=weigh(rotated(phi_q), rotated(phi_k)))


@fault("LATT-15", "sums are kept in bfloat16")
def normaliser_summed_in_the_dtype_of_k(q, k, v, positions):
    phi_q, phi_k = features(q, k)
    sums, total = [], torch.zeros_like(k[:, :, 0])
    for n in range(k.shape[-2]):
        total = total + phi_k[:, :, n].to(k.dtype)
        sums.append(total)
    denominator = (phi_q * torch.stack(sums, -2).double()).sum(-1)
    return attend(q, k, v, positions, denominator=denominator)


@fault("LATT-15", "sums are kept in float16", dtypes=("float32", "float16"))
def state_kept_in_the_dtype_of_v(q, k, v, positions):
    phi_q, phi_k = (x.float() for x in features(q, k))
    turned_q, turned_k = (x.float() for x in turned(phi_q, phi_k, positions))
    state, total, outs = 0.0, 0.0, []
    for n in range(q.shape[-2]):
        outer = turned_k[:, :, n, :, None] * v[:, :, n, None].float()
        state = (state + outer).to(v.dtype).float()
        total = total + phi_k[:, :, n]
        numerator = (turned_q[:, :, n, None] @ state)[:, :, 0]
        outs.append(numerator / (phi_q[:, :, n] * total).sum(-1, keepdim=True))
    return torch.stack(outs, -2).to(v.dtype)


@fault("LATT-16", "rounded to bfloat16")
def features_in_the_dtype_of_q(q, k, v, positions):
    phi_q, phi_k = (x.to(q.dtype).double() for x in features(q, k))
    return attend_to_features(phi_q, phi_k, v, positions)


# Gradient and bad input -------------------------------------------------------------------------


@fault("LATT-17", "leave out the denominator")
def denominator_detached(q, k, v, positions):
    total = weigh(*features(q, k)).sum(-1).detach()
    return attend(q, k, v, positions, denominator=total)


@fault("LATT-17", "does not reach k")
def keys_detached(q, k, v, positions):
    return attend(q, k.detach(), v, positions)


@fault("LATT-18", "4 keys with 5 values", framework="numpy", dtypes=("float32",))
def values_cut_to_the_keys(q, k, v, positions):
    count = k.shape[2]
    full = np.zeros_like(v)
    full[:, :, :count] = rs.linear_attention(
        q[:, :, :count], k, v[:, :, :count], positions[:count], SPEC, causal=True
    )
    return full


@fault("LATT-19", "3 position ids for 4 tokens", framework="numpy", dtypes=("float32",))
def positions_stretched(q, k, v, positions):
    ids = np.resize(positions, q.shape[2])
    return rs.linear_attention(q, k, v, ids, SPEC, causal=True)
