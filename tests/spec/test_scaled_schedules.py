"""The scaled schedules against transformers' own functions, and their rules."""

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import SpecError

LENGTH = 4096
SHORT = [1 + 0.01 * i for i in range(64)]
LONG = [1 + 0.5 * i for i in range(64)]

CASES = {
    "dynamic below": ({"rope_type": "dynamic", "factor": 4.0}, rs.DynamicNtk(4, LENGTH), 100),
    "dynamic beyond": ({"rope_type": "dynamic", "factor": 4.0}, rs.DynamicNtk(4, LENGTH), 9001),
    "yarn": (
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": LENGTH},
        rs.Yarn(8, LENGTH),
        None,
    ),
    "yarn, untruncated, mscales": (
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": LENGTH,
            "truncate": False,
            "mscale": 1.0,
            "mscale_all_dim": 0.707,
        },
        rs.Yarn(40, LENGTH, truncate=False, mscale=1.0, mscale_all_dim=0.707),
        None,
    ),
    "yarn, betas, factor given": (
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": LENGTH,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
        rs.Yarn(4, LENGTH, beta_fast=16, beta_slow=2, attention_factor=1.5),
        None,
    ),
    **{
        f"longrope at {length}": (
            {
                "rope_type": "longrope",
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": LENGTH,
                "factor": 8.0,
            },
            rs.LongRope(SHORT, LONG, LENGTH, factor=8),
            length,
        )
        for length in (LENGTH - 1, LENGTH, LENGTH + 1)
    },
    "proportional": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.25},
        rs.Proportional(0.25),
        None,
    ),
}


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize(("parameters", "schedule", "length"), CASES.values(), ids=CASES)
def test_transformers_computes_the_same(parameters, schedule, length, base):
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
    inv_freq, magnitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
        config, torch.device("cpu"), seq_len=length
    )
    spec = rs.RotarySpec(128, base=base, layout="half", schedule=schedule)
    # float32: the rounding of the exponent, amplified by ln(base) in the power, and two more; the
    # NTK base is rounded once more. YaRN's share of the unscaled frequency is off by 3u, which in
    # the slow pairs stands beside a term that is `factor` times smaller.
    u = 2.0**-24
    bound = u * (4 + 2 * np.log(base * 4))
    if isinstance(schedule, rs.Yarn):
        bound += 3 * u * (schedule.factor - 1)
    np.testing.assert_allclose(
        inv_freq.double().numpy(), rs.frequencies(spec, length), rtol=bound, atol=0
    )
    assert magnitude == pytest.approx(rs.attention_factor(spec, length), rel=1e-12)


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
