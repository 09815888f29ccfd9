"""Configs that contradict themselves: the error names the key and the rule."""

from __future__ import annotations

from typing import Any

import pytest

import rotary_spec as rs
from rotary_spec import SpecError

LENGTH = {"original_max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, **LENGTH}
LONG = {"rope_type": "longrope", "factor": 4.0, **LENGTH,
        "short_factor": [1.0] * 32, "long_factor": [2.0] * 32}  # fmt: skip


def without(parameters: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in names}


@pytest.mark.parametrize(
    ("parameters", "config", "said"),
    [
        # Widths.
        ({"partial_rotary_factor": 0.3}, {"head_dim": 90},
         "partial_rotary_factor 0.3 of head_dim 90, .* must be even and positive.*; got 27"),
        ({"partial_rotary_factor": 0.01}, {}, "partial_rotary_factor 0.01 .* got 0"),
        ({"partial_rotary_factor": 1.5}, {}, "partial_rotary_factor 1.5 .* must not exceed .* 96"),
        ({"partial_rotary_factor": -1}, {}, "partial_rotary_factor must be finite and positive"),
        ({}, {"qk_rope_head_dim": 63}, "qk_rope_head_dim must be even and positive.* got 63"),
        ({}, {"rotary_dim": 65}, "rotary_dim must be even and positive.* got 65"),
        ({}, {"rotary_dim": 128}, "rotary_dim must not exceed head_dim"),
        # Sections.
        ({"mrope_section": [16, 24, 24]}, {},
         r"mrope_section must sum to rotary_dim / 2 = 32, .* got 16 \+ 24 \+ 24 = 64"),
        ({"mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5}, {},
         "mrope_section must sum to rotary_dim / 2 = 16"),
        ({"mrope_section": [0, 16, 16]}, {}, "mrope_section must give every axis .* one pair"),
        ({"mrope_section": "8,12,12"}, {}, "mrope_section must be a list of pairs per axis"),
        ({"mrope_section": [8, 12.5, 11.5]}, {}, "mrope_section must be an integer, got 12.5"),
        ({"mrope_section": [2, 15, 15], "mrope_interleaved": True}, {},
         r"mrope_section \[2, 15, 15\]: .* order 'interleaved'"),
        ({"mrope_section": [12, 10, 10], "mrope_interleaved": False},
         {"model_type": "qwen3_vl_text"}, "mrope_interleaved False contradicts .* interleaved"),
        ({"mrope_section": [8, 12, 12], "mrope_interleaved": True},
         {"model_type": "qwen2_vl_text"}, "mrope_interleaved True contradicts .* chunked order"),
        ({}, {"model_type": "qwen2_vl_text"}, "mrope_section .* 64, qwen2_vl_text's where none"),
        ({"mrope_section": [12, 10, 10]}, {"model_type": "ernie4_5_vl_moe_text"},
         "mrope_section .*'spatial_first' needs equal sizes"),
        ({"rope_type": "mrope"}, {}, "rope_type 'mrope' needs mrope_section"),
        ({"rope_type": "axial"}, {"model_type": "llama"}, "'axial' .* 'llama' is not known"),
        ({"rope_type": "linear", "factor": 2.0}, {"model_type": "pixtral"},
         "rope_type 'linear': the code of model_type 'pixtral' has no schedule but the plain one"),
        ({}, {"model_type": "pixtral", "head_dim": 66}, "head_dim must be a multiple of 4, got 66"),
        # Factors.
        ({"rope_type": "linear", "factor": 0.5}, {}, "factor must be at least 1, got 0.5"),
        ({"rope_type": "dynamic", "factor": 0.5}, {"max_position_embeddings": 64},
         "factor must be at least 1, got 0.5"),
        ({**LLAMA3, **LENGTH, "factor": 0.5}, {}, "factor must be at least 1, got 0.5"),
        ({**YARN, "factor": 0.5}, {}, "factor must be at least 1, got 0.5"),
        ({**LONG, "factor": 0.5}, {}, "factor must be at least 1, got 0.5"),
        ({"rope_type": "proportional", "factor": 0.5}, {}, "factor must be at least 1, got 0.5"),
        ({"rope_type": "proportional", "partial_rotary_factor": 2}, {},
         "partial_rotary_factor must be at most 1, got 2"),
        ({"rope_type": "dynamic", "alpha": 0.5}, {"model_type": "hunyuan_v1_dense"},
         "alpha must be at least 1, got 0.5"),
        ({"rope_type": "linear"}, {}, "rope_type 'linear' needs factor; got none"),
        ({"rope_type": "linear", "factor": "4"}, {}, "factor must be a number, got '4'"),
        # Ramps.
        ({**YARN, "beta_fast": 1, "beta_slow": 32}, {},
         "beta_fast must not be below beta_slow, got 1 < 32"),
        ({**YARN, "beta_fast": 0.5}, {}, "beta_fast must not be below beta_slow"),
        ({**LLAMA3, **LENGTH, "low_freq_factor": 8.0}, {},
         "low_freq_factor must not exceed high_freq_factor, got 8.0 > 4.0"),
        ({**without(LLAMA3, "low_freq_factor"), **LENGTH}, {}, "'llama3' needs low_freq_factor"),
        ({**YARN, "truncate": "no"}, {}, "truncate"),
        # Lengths.
        (LLAMA3, {}, "'llama3' needs original_max_position_embeddings, or max_position_embeddings"),
        (without(YARN, *LENGTH), {}, "'yarn' needs original_max_position_embeddings, or max_pos"),
        (without(LONG, *LENGTH), {}, "'longrope' needs original_max_position_embeddings, or max_p"),
        ({"rope_type": "dynamic", "factor": 2.0}, {}, "'dynamic' needs max_position_embeddings"),
        (without(YARN, "factor"), {"max_position_embeddings": 2048},
         "max_position_embeddings must not be below original_max_pos.* 2048 < 4096"),
        (without(YARN, "factor"), {}, "'yarn' needs factor"),
        (without(YARN, "factor"), {"max_position_embeddings": "long"},
         "max_position_embeddings must be a number, got 'long'"),
        ({**without(YARN, "factor"), "original_max_position_embeddings": "short"},
         {"max_position_embeddings": 64}, "original_max_.* must be a number, got 'short'"),
        ({**YARN, "original_max_position_embeddings": 0}, {"max_position_embeddings": 64},
         "original_max_position_embeddings must be finite and positive, got 0"),
        ({"rope_type": "dynamic", "factor": 2.0}, {"max_position_embeddings": "long"},
         "max_position_embeddings must be a number, got 'long'"),
        ({**YARN, "original_max_position_embeddings": -1}, {},
         "original_max_position_embeddings must be finite and positive, got -1"),
        ({**LONG, "original_max_position_embeddings": 1}, {},
         "original_max_position_embeddings must be at least 2"),
        # Lists.
        ({**LONG, "long_factor": [2.0] * 31}, {},
         "short_factor and long_factor must be of one length, got 32 and 31"),
        ({**LONG, "short_factor": [1.0] * 16, "long_factor": [1.0] * 16}, {},
         "short_factor and long_factor must hold one number per pair, 32; got 16"),
        ({**LONG, "partial_rotary_factor": 0.5}, {}, "one number per pair, 16; got 32"),
        ({**LONG, "long_factor": [2.0] * 31 + [-2.0]}, {}, "long_factor must be finite and pos"),
        (without(LONG, "long_factor"), {}, "'longrope' needs long_factor"),
        # Magnitudes.
        ({**YARN, "attention_factor": 0}, {}, "attention_factor must be finite .* got 0"),
        ({**YARN, "attention_factor": -1.0}, {}, "attention_factor must be finite and positive"),
        ({**LONG, "attention_factor": 0.0}, {}, "attention_factor must be finite and positive"),
        ({**LONG, "short_mscale": 1.1, "long_mscale": 1.2}, {"model_type": "phimoe"},
         "short_mscale and long_mscale must be equal, .* 1.1 and 1.2"),
        # Keys.
        ({"factor": 8.0}, {}, "holds 'factor', unknown for rope_type 'default'"),
        ({**YARN, "finetuned": True, "attn_factor": 1.0}, {},
         "holds 'attn_factor', 'finetuned', unknown for rope_type 'yarn'; known: attention_f"),
        ({"rope_type": "dynamic", "alpha": 8.0, "factor": 1.0}, {"model_type": "llama"},
         "holds 'alpha', unknown"),
        ({"rope_type": "linear", "factor": 2.0, "mrope_interleaved": True}, {},
         "holds 'mrope_interleaved', unknown"),
        ({"rope_type": "ntk", "factor": 2.0}, {}, "'ntk' is not one of Hugging Face's; known: def"),
        ({"rope_type": "explicit", "inv_freq": [1.0] * 32}, {}, "'explicit' is not one of Hugging"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_the_key_and_the_rule(parameters: Any, config: dict[str, Any], said: str) -> None:
    for name in ("rope_parameters", "rope_scaling"):
        with pytest.raises(SpecError, match=said):
            rs.from_hf_config({"head_dim": 64, **config, name: parameters})
    # The same of one layer type of two.
    nested = {"full_attention": parameters, "sliding_attention": {"rope_type": "default"}}
    with pytest.raises(SpecError, match=said):
        rs.from_hf_config({"head_dim": 64, **config, "rope_parameters": nested})


class TestUnknownKeys:
    def test_they_can_be_left_out(self) -> None:
        parameters = {**YARN, "finetuned": True}
        spec = rs.from_hf_config({"head_dim": 64, "rope_scaling": parameters}, ignore_unknown=True)
        assert spec == rs.RotarySpec(64, layout="half", schedule=rs.Yarn(4.0, 4096))

    def test_in_every_layer_type(self) -> None:
        config = {"head_dim": 64, "rope_parameters": {
            "full_attention": {**YARN, "finetuned": True},
            "sliding_attention": {"rope_type": "default", "factor": 1.0}}}  # fmt: skip
        layers = rs.from_hf_config(config, ignore_unknown=True)
        assert layers["full_attention"].schedule == rs.Yarn(4.0, 4096)
        assert layers["sliding_attention"].schedule == rs.Default()

    @pytest.mark.parametrize("name", ["llama_4_scaling_beta", "max_position_embeddings"])
    def test_some_do_not_bear_on_the_rotation(self, name: str) -> None:
        spec = rs.from_hf_config({"head_dim": 64, "rope_parameters": {**YARN, name: 3}})
        assert spec.schedule == rs.Yarn(4.0, 4096)

    def test_an_empty_one_is_absent(self) -> None:
        spec = rs.from_hf_config({"head_dim": 64, "rope_parameters": {**YARN, "mscale": None}})
        assert spec.schedule == rs.Yarn(4.0, 4096)
