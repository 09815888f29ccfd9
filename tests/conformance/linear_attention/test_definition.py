"""The oracle of linear attention: its terms, and the room it leaves for arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rotary_spec as rs
from rotary_spec.feature_maps import FEATURE_MAPS
from rotary_spec_conformance import LinearAttentionTarget
from rotary_spec_conformance.inference import framework_named
from rotary_spec_conformance.linear_attention.definition import (
    Definition,
    feature_roundings,
    jacobian,
)
from rotary_spec_conformance.linear_attention.probe import LinearAttentionProbe
from tests.conformance.linear_attention.zoo_correct import torch_elu

SPEC = rs.RotarySpec(head_dim=8)
PARTIAL = rs.RotarySpec(head_dim=8, layout="half", rotary_dim=4, rotary_start=2,
                        attention_factor=1.3)  # fmt: skip
MAPS = {**FEATURE_MAPS, "favor": rs.favor(8, 8, seed=1)}


def inputs(*shape):
    return np.random.default_rng(0).standard_normal((3, *shape))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spec", [SPEC, PARTIAL], ids=["whole", "partial"])
@pytest.mark.parametrize("name", MAPS)
def test_the_terms_make_up_the_reference(name, spec, causal):
    definition = Definition(spec, MAPS[name], causal, eps=1e-3)
    q, k, v = inputs(2, 3, 9, 8)
    ids = np.arange(5, 14)
    terms = definition.terms(q, k, ids)
    np.testing.assert_allclose(terms.weights @ v, definition(q, k, v, ids), rtol=1e-12, atol=1e-14)
    last = definition.terms(q, k, ids, rows=slice(-2, None))
    np.testing.assert_array_equal(last.weights, terms.weights[..., -2:, :])
    assert (np.abs(terms.numerators) <= terms.magnitudes * (1 + 1e-12)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MAPS)
def test_arithmetic_in_a_dtype_stays_in_the_room_but_not_far_from_it(name, dtype):
    """Every operation rounded to the dtype; ten times the error of the worst would be too much."""
    u = {"float32": 2.0**-24, "bfloat16": 2.0**-8}[dtype]
    kind = getattr(torch, dtype)
    q, k, v = (x.to(kind) for x in torch.from_numpy(inputs(4, 32, 8)))
    ids = torch.arange(32)

    def features(side, x):
        if name == "elu+1":
            return torch_elu(x)
        if name == "softmax":
            return x.softmax(-1) if side == "query" else x.exp()
        return MAPS[name].query(x)

    phi_q, phi_k = features("query", q), features("key", k)
    turned = [rs.rotate(x, ids, SPEC) for x in (phi_q, phi_k)]
    weights = (turned[0] @ turned[1].mT).tril()
    total = (phi_q @ phi_k.mT).tril().sum(-1, keepdim=True, dtype=torch.float32)
    out = ((weights @ v) / total).to(kind).double().numpy()

    definition = Definition(SPEC, MAPS[name], causal=True)
    host = [x.double().numpy() for x in (q, k, v)]
    room = definition.terms(*host[:2], ids.numpy(), u=u).room(host[2])
    share = np.abs(out - definition(*host, ids.numpy())) / room
    assert share.max() <= 1
    assert share.max() > 2e-3  # a room a thousand times too wide would show nothing


def test_slopes_of_feature_maps():
    x = inputs(5, 8)[0]
    slopes = jacobian(FEATURE_MAPS["elu+1"].query, x)
    expected = np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))[..., None] * np.eye(8)
    np.testing.assert_allclose(slopes, expected, atol=1e-9)


def test_roundings_of_a_map_of_ones_own_follow_its_slopes():
    """exp of a product with a matrix: what it carries on is what `favor` would."""
    x = np.ones((1, 2))
    steep = rs.FeatureMap(lambda y: np.exp(10 * y), np.exp)
    flat = rs.FeatureMap(lambda y: np.exp(y), np.exp)
    relative = [feature_roundings(m, "query", x, m.query(x)) / m.query(x) for m in (steep, flat)]
    np.testing.assert_allclose(relative[0] / relative[1], 11 / 2, rtol=1e-6)


def test_weights_are_read_whole_whatever_the_width_of_values():
    def reference(q, k, v, positions):
        return rs.linear_attention(q, k, v, positions, SPEC, causal=True)

    target = LinearAttentionTarget(
        "mine", build=lambda: reference, framework=framework_named("numpy"), head_dim=8, value_dim=3
    )
    q, k, _ = inputs(10, 8)
    weights = LinearAttentionProbe(target, "float64").weights(q, k, np.arange(10))
    terms = Definition(SPEC, FEATURE_MAPS["elu+1"], causal=True).terms(q, k, np.arange(10))
    np.testing.assert_allclose(weights, terms.weights, atol=1e-14)
