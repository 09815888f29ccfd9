"""The scaled schedules against transformers' own functions, and their rules."""

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import SpecError
from tests.spec.transformers_rope import assert_same

LENGTH = 4096
SHORT = [1 + 0.01 * i for i in range(64)]
LONG = [1 + 0.5 * i for i in range(64)]

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L = {"original_max_position_embeddings": LENGTH}
# What a config says, the schedule it means, and the lengths on both sides of a switch.
CASES = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, rs.Linear(4), [None]),
    "dynamic": (
        {"rope_type": "dynamic", "factor": 4.0},
        rs.DynamicNtk(4, LENGTH),
        [None, 1, 100, LENGTH - 1, LENGTH, LENGTH + 1, 9001, 4 * LENGTH],
    ),
    "yarn": ({"rope_type": "yarn", "factor": 8.0, **L}, rs.Yarn(8, LENGTH), [None]),
    "yarn, untruncated, mscales": (
        {"rope_type": "yarn", "factor": 40.0, **L, "truncate": False, "mscale": 1.0,
         "mscale_all_dim": 0.707},
        rs.Yarn(40, LENGTH, truncate=False, mscale=1.0, mscale_all_dim=0.707),
        [None],
    ),
    "yarn, one mscale": (
        {"rope_type": "yarn", "factor": 40.0, **L, "mscale": 2.0, "mscale_all_dim": 0},
        rs.Yarn(40, LENGTH, mscale=2.0, mscale_all_dim=0),
        [None],
    ),
    "yarn, betas, factor given": (
        {"rope_type": "yarn", "factor": 4.0, **L, "beta_fast": 16.0, "beta_slow": 2.0,
         "attention_factor": 1.5},
        rs.Yarn(4, LENGTH, beta_fast=16, beta_slow=2, attention_factor=1.5),
        [None],
    ),
    "longrope": (
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, **L, "factor": 8.0},
        rs.LongRope(SHORT, LONG, LENGTH, factor=8),
        [None, 1, LENGTH - 1, LENGTH, LENGTH + 1, 8 * LENGTH],
    ),
    "longrope, factor given": (
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, **L,
         "attention_factor": 1.25},
        rs.LongRope(SHORT, LONG, LENGTH, attention_factor=1.25),
        [LENGTH, LENGTH + 1],
    ),
    "llama3": (
        {"rope_type": "llama3", **LLAMA3, **L}, rs.Llama3(8, 1, 4, LENGTH), [None]
    ),
    "llama3, a step": (
        {"rope_type": "llama3", **LLAMA3, **L, "high_freq_factor": 1.0},
        rs.Llama3(8, 1, 1, LENGTH),
        [None],
    ),
    "proportional": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.25}, rs.Proportional(0.25), [None]
    ),
    "proportional, scaled": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.3, "factor": 8.0},
        rs.Proportional(0.3, factor=8),
        [None],
    ),
}  # fmt: skip


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("parameters", "schedule", "lengths"), CASES.values(), ids=CASES)
def test_transformers_computes_the_same(parameters, schedule, lengths, base):
    pytest.importorskip("transformers")
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        max_position_embeddings=LENGTH,
        rope_parameters={**parameters, "rope_theta": base},
    )
    spec = rs.RotarySpec(128, base=base, layout="half", schedule=schedule)
    for length in lengths:
        inv_freq, magnitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
            config, torch.device("cpu"), seq_len=length
        )
        assert_same((inv_freq.double().numpy(), magnitude), spec, length)


@pytest.mark.parametrize(("parameters", "schedule", "lengths"), CASES.values(), ids=CASES)
def test_the_comparison_tells_a_wrong_number(parameters, schedule, lengths):
    """One frequency in 30,000 off, or a magnitude in 10^12, is more than float32 explains."""
    spec = rs.RotarySpec(128, base=500_000.0, schedule=schedule)
    for length in lengths:
        ours, magnitude = rs.frequencies(spec, length), rs.attention_factor(spec, length)
        assert_same((ours, magnitude), spec, length)
        with pytest.raises(AssertionError):
            assert_same((ours, magnitude * (1 + 1e-12)), spec, length)
        for pair in np.flatnonzero(ours):
            wrong = ours.copy()
            wrong[pair] *= 1 + 1 / 30_000
            with pytest.raises(AssertionError):
                assert_same((wrong, magnitude), spec, length)


def test_every_rope_type_is_compared():
    pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert {parameters["rope_type"] for parameters, _, _ in CASES.values()} == {
        *ROPE_INIT_FUNCTIONS
    }


def test_ntk_is_the_paper_with_another_base():
    spec = rs.RotarySpec(64, schedule=rs.Ntk(4))
    other = rs.RotarySpec(64, base=10_000 * 4 ** (64 / 62))
    np.testing.assert_allclose(rs.frequencies(spec), rs.frequencies(other), rtol=1e-14)


def test_explicit_frequencies_are_kept_to_the_bit():
    given = np.float32(10_000.0) ** -(np.arange(0, 64, 2, dtype=np.float32) / 64)
    spec = rs.RotarySpec(64, schedule=rs.Explicit(given))
    np.testing.assert_array_equal(rs.frequencies(spec), given.astype(np.float64))
    assert rs.RotarySpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rs.Ntk(0.5), "factor must be at least 1"),
        (lambda: rs.Yarn(8, 4096, beta_fast=1, beta_slow=2), "beta_fast"),
        (lambda: rs.Yarn(8, 4096, truncate=None), "truncate"),
        (lambda: rs.LongRope([1.0], [1.0, 2.0], 4096), "one length"),
        (lambda: rs.RotarySpec(8, schedule=rs.LongRope([1.0], [1.0], 4096)), "one number per pair"),
        (lambda: rs.RotarySpec(8, schedule=rs.Explicit([1.0])), "one number per pair"),
        (lambda: rs.Explicit([float("nan")] * 4), "inv_freq"),
        (lambda: rs.Proportional(1.5), "partial_rotary_factor"),
        (lambda: rs.DynamicNtk(2, 0), "max_position_embeddings"),
    ],
)
def test_contradictions_are_refused(make, words):
    with pytest.raises(SpecError, match=words):
        make()
