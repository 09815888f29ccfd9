"""Configs that say more than one thing: layer types, parts of heads, schedules with defaults."""

from __future__ import annotations

from typing import Any

import pytest

import rotary_spec as rs
from rotary_spec import SpecError, from_hf_config
from rotary_spec.huggingface import one_hf_spec, says_rotary

NESTED: dict[str, Any] = {
    "model_type": "gemma4_text",
    "head_dim": 256,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {
            "rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25,
        },
    },
}  # fmt: skip
FULL = rs.RotarySpec(512, base=1e6, layout="half", schedule=rs.Proportional(0.25))


class TestLayerTypes:
    def test_each_has_its_own(self) -> None:
        config = {**NESTED, "per_layer_config": {"01": {"head_dim": 512}}}
        assert from_hf_config(config, layer_type="full_attention") == FULL
        sliding = from_hf_config(config, layer_type="sliding_attention")
        assert sliding == rs.RotarySpec(256, layout="half")

    def test_without_a_layer_type_there_is_one_spec_for_each(self) -> None:
        config = {**NESTED, "global_head_dim": 512}
        assert from_hf_config(config) == {
            "sliding_attention": rs.RotarySpec(256, layout="half"),
            "full_attention": FULL,
        }

    def test_layers_that_do_not_rotate_have_none(self) -> None:
        sliding = {"rope_type": "default", "rope_theta": 1e4}
        config = {"head_dim": 64, "rope_parameters": {
            "sliding_attention": sliding, "full_attention": None}}  # fmt: skip
        assert from_hf_config(config) == {"sliding_attention": rs.RotarySpec(64, layout="half")}
        with pytest.raises(SpecError, match="'full_attention': its layers do not rotate"):
            from_hf_config(config, layer_type="full_attention")

    def test_other_spellings_of_the_wider_head(self) -> None:
        config = {**NESTED, "global_head_dim": 512}
        assert from_hf_config(config, layer_type="full_attention") == FULL
        config = {**NESTED, "per_layer_config": {1: {"head_dim": 512}}}
        assert from_hf_config(config, layer_type="full_attention") == FULL

    def test_transformers_4_had_a_second_base(self) -> None:
        config = {"head_dim": 256, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
                  "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
        local = from_hf_config(config, layer_type="sliding_attention")
        assert local == rs.RotarySpec(256, layout="half")
        full = from_hf_config(config, layer_type="full_attention")
        assert full == rs.RotarySpec(256, base=1e6, layout="half", schedule=rs.Linear(8.0))

    def test_one_schedule_serves_every_layer_type(self) -> None:
        assert from_hf_config({"head_dim": 64}, layer_type="any") == from_hf_config(
            {"head_dim": 64}
        )

    def test_it_must_be_said(self) -> None:
        with pytest.raises(SpecError, match=r"per layer type .*; say which: layer_type='sliding_"):
            one_hf_spec(NESTED)
        with pytest.raises(SpecError, match="one of sliding_attention, full_attention, got 'odd'"):
            from_hf_config(NESTED, layer_type="odd")


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (
            {"model_type": "deepseek_v3", "hidden_size": 7168, "num_attention_heads": 128,
             "qk_rope_head_dim": 64},
            rs.RotarySpec(64, output_layout="half"),
        ),
        (
            {"model_type": "deepseek_v3", "qk_rope_head_dim": 64, "rope_interleave": False},
            rs.RotarySpec(64, layout="half"),
        ),
        (
            {"model_type": "deepseek_v4", "head_dim": 512, "qk_rope_head_dim": 64,
             "rope_parameters": {"partial_rotary_factor": 0.125}},
            rs.RotarySpec(512, rotary_dim=64, rotary_start=448),
        ),
        ({"model_type": "nanochat", "head_dim": 128},
         rs.RotarySpec(128, layout="half", inverse=True)),
        ({"hidden_size": 2048, "num_attention_heads": 32, "kv_channels": 128},
         rs.RotarySpec(128, layout="half")),
        ({"kv_channels": 80, "attention_head_dim": 160}, rs.RotarySpec(160, layout="half")),
        ({"d_model": 2048, "n_heads": 16}, rs.RotarySpec(128, layout="half")),
    ],
    ids=lambda value: value.get("model_type", "") if isinstance(value, dict) else "",
)  # fmt: skip
def test_parts_of_heads(config: dict[str, Any], spec: rs.RotarySpec) -> None:
    assert from_hf_config(config) == spec


@pytest.mark.parametrize(
    ("parameters", "schedule"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, rs.Yarn(4.0, 32768)),
        ({"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 4096},
         rs.Yarn(8.0, 4096)),
        ({"rope_type": "yarn", "factor": 4.0, "llama_4_scaling_beta": 0.1, "truncate": False},
         rs.Yarn(4.0, 32768, truncate=False)),
        ({"rope_type": "dynamic", "factor": 2.0}, rs.DynamicNtk(2.0, 32768)),
        ({"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0}, rs.Ntk(1000.0)),
        ({"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
          "original_max_position_embeddings": 4096},
         rs.LongRope((1.0,) * 4, (2.0,) * 4, 4096, factor=8.0)),
        ({"rope_type": "default", "mrope_section": [2, 1, 1]}, rs.Default()),
        ({"rope_type": "proportional"}, rs.Proportional(1.0)),
    ],
    ids=lambda value: str(value)[:48],
)  # fmt: skip
def test_schedules(parameters: dict[str, Any], schedule: rs.Schedule) -> None:
    config = {"head_dim": 8, "max_position_embeddings": 32768, "rope_parameters": parameters}
    assert from_hf_config(config).schedule == schedule


def test_axes_are_in_the_code_of_a_model_type() -> None:
    config = {"head_dim": 64, "rope_parameters": {"rope_type": "axial", "rope_theta": 1e4}}
    with pytest.raises(SpecError, match=r"'axial' turns by several positions.* None is not known"):
        from_hf_config(config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hidden_size": 64}, False),
        ({"rope_parameters": {}, "rope_theta": None}, False),
        ({"rope_theta": 1e4}, True),
        ({"rotary_dim": 64}, True),
        (NESTED, True),
    ],
)
def test_says_rotary(config: dict[str, Any], says: bool) -> None:
    assert says_rotary(config) is says
