"""Hugging Face configs: both spellings, every kind of source, and what is no config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rotary_spec as rs

LLAMA2 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "rope_scaling": None,
}
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA31_V4 = {**LLAMA2, "rope_theta": 500_000.0, "rope_scaling": SCALING}
LLAMA31_V5 = {
    "model_type": "llama",
    "head_dim": 128,
    "rope_parameters": {"rope_theta": 500_000.0, **SCALING},
}
LLAMA31 = rs.RotarySpec(128, base=500_000.0, layout="half", schedule=rs.Llama3(8.0, 1.0, 4.0, 8192))


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        pytest.param(LLAMA2, rs.RotarySpec(128, layout="half"), id="llama-2"),
        pytest.param(LLAMA31_V4, LLAMA31, id="llama-3.1, transformers 4"),
        pytest.param(LLAMA31_V5, LLAMA31, id="llama-3.1, transformers 5"),
        pytest.param(
            {**LLAMA2, "rope_scaling": {"type": "linear", "factor": 2.0}},
            rs.RotarySpec(128, layout="half", schedule=rs.Linear(2.0)),
            id="'type' for 'rope_type'",
        ),
        pytest.param(
            {"model_type": "gptj", "n_embd": 4096, "n_head": 16, "rotary_dim": 64},
            rs.RotarySpec(256, rotary_dim=64),
            id="gpt-j",
        ),
        pytest.param(
            {
                "model_type": "gpt_neox",
                "hidden_size": 6144,
                "num_attention_heads": 64,
                "rotary_pct": 0.25,
                "rotary_emb_base": 10000,
            },
            rs.RotarySpec(96, layout="half", rotary_dim=24),
            id="gpt-neox, transformers 4",
        ),
        pytest.param(
            {
                "model_type": "gpt_neox",
                "hidden_size": 6144,
                "num_attention_heads": 64,
                "rope_parameters": {
                    "rope_theta": 20_000.0,
                    "partial_rotary_factor": 0.25,
                    "rope_type": "default",
                },
            },
            rs.RotarySpec(96, layout="half", rotary_dim=24, base=20_000.0),
            id="gpt-neox, transformers 5",
        ),
        pytest.param(
            {"model_type": "phi", "head_dim": 80, "partial_rotary_factor": 0.4},
            rs.RotarySpec(80, layout="half", rotary_dim=32),
            id="partial factor at the top",
        ),
        pytest.param(
            {"model_type": "roformer", "hidden_size": 768, "num_attention_heads": 12},
            rs.RotarySpec(64),
            id="roformer",
        ),
        pytest.param(
            {"model_type": "gptj", "head_dim": 64, "rope_theta": 5e5},
            rs.RotarySpec(64),
            id="a base that the model's code does not read",
        ),
        pytest.param({"head_dim": 64}, rs.RotarySpec(64, layout="half"), id="bare"),
        pytest.param(
            {"head_dim": 64, "rope_scaling": SCALING, "rope_parameters": SCALING},
            rs.RotarySpec(64, layout="half", schedule=LLAMA31.schedule),
            id="both spellings, in agreement",
        ),
        pytest.param(
            {"head_dim": 64, "rope_parameters": SCALING, "original_max_position_embeddings": 4096},
            rs.RotarySpec(64, layout="half", schedule=rs.Llama3(8.0, 1.0, 4.0, 4096)),
            id="original length at the top",
        ),
    ],
)
def test_configs(config: dict[str, Any], spec: rs.RotarySpec, tmp_path: Path) -> None:
    """As a mapping, a path, a path's text and a config object."""
    before = json.dumps(config)
    path = tmp_path / "config.json"
    path.write_text(before, encoding="utf-8")

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return config

    for given in (config, path, str(path), Config()):
        assert rs.from_hf_config(given) == spec
    assert json.dumps(config) == before


def test_layout_can_be_said() -> None:
    """A checkpoint in Meta's own order has Hugging Face's config and the other layout."""
    assert rs.from_hf_config(LLAMA2, layout="interleaved") == rs.RotarySpec(128)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "head_dim, or hidden_size and num_attention_heads"),
        ({"hidden_size": 64}, "num_attention_heads"),
        ({"hidden_size": 65, "num_attention_heads": 8}, "hidden_size 65 .* num_attention_heads 8"),
        ({"hidden_size": 64, "num_attention_heads": 0}, "num_attention_heads 0"),
        ({"hidden_size": "wide", "num_attention_heads": 8}, "hidden_size .* 'wide'"),
        ({"head_dim": "64"}, "head_dim .* '64'"),
        ({"head_dim": 63}, "head_dim .* 63"),
        ({"head_dim": 64, "rotary_dim": 1.5}, "rotary_dim .* 1.5"),
        ({"head_dim": 64, "rotary_pct": "all"}, "partial_rotary_factor .* 'all'"),
        ({"head_dim": 64, "rope_theta": 0}, "base .* 0"),
        ({"head_dim": 64, "rope_theta": "1e4"}, "base .* '1e4'"),
        ({"head_dim": 64, "rope_scaling": "linear"}, "rope_scaling .* 'linear'"),
        ({"head_dim": 64, "rope_scaling": {"type": "su"}}, "'su' .* known: .*llama3"),
        ({"head_dim": 64, "rope_scaling": {"type": "linear"}}, "'linear' needs factor; got none"),
        (
            {"head_dim": 64, "rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}},
            "holds 'beta', unknown for rope_type 'linear'; known: factor, ",
        ),
        (
            {"head_dim": 64, "rope_scaling": {"type": "linear", "factor": 0.5}},
            "factor .* at least 1.* 0.5",
        ),
        (
            {
                "head_dim": 64,
                "rope_scaling": {**SCALING, "factor": 2.0},
                "rope_parameters": SCALING,
            },
            "rope_parameters and rope_scaling .* must agree",
        ),
        (
            {"head_dim": 64, "rope_parameters": {"full": {"factor": 2}, "sliding": {"factor": 2}}},
            "holds 'factor', unknown for rope_type 'default'",
        ),
        (
            {"text_config": {"hidden_size": 64}, "vision_config": {}},
            "needs head_dim.* It holds text_config, vision_config: pass one of them",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_configs(config: dict[str, Any], said: str) -> None:
    with pytest.raises(rs.SpecError, match=said):
        rs.from_hf_config(config)


def test_bad_sources(tmp_path: Path) -> None:
    absent = tmp_path / "absent.json"
    with pytest.raises(rs.SpecError, match=r"absent\.json' cannot be read: No such file"):
        rs.from_hf_config(absent)
    with pytest.raises(rs.SpecError, match="cannot be read"):
        rs.from_hf_config(tmp_path)
    for text, said in (("{", "is not JSON"), ("[1]", "JSON object"), ("\xff", "is not JSON")):
        path = tmp_path / "config.json"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(rs.SpecError, match=rf"config\.json' .*{said}"):
            rs.from_hf_config(path)
    with pytest.raises(rs.SpecError, match=r"object with to_dict\(\), got int"):
        rs.from_hf_config(3)


@pytest.mark.parametrize("name", ["LlamaConfig", "GPTJConfig", "GPTNeoXConfig", "PhiConfig"])
def test_config_objects(name: str) -> None:
    """The object, its dict and its saved JSON describe one embedding."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, name)()
    spec = rs.from_hf_config(config)
    assert spec == rs.from_hf_config(config.to_dict())
    assert spec == rs.from_hf_config(json.loads(config.to_json_string(use_diff=False)))
    assert spec.layout == ("interleaved" if name == "GPTJConfig" else "half")


AXIAL = {"frequencies": "restart"}


@pytest.mark.parametrize(
    ("config", "head_dim", "layout", "sections"),
    [
        # Qwen2-VL-7B names its vision tower as the whole; its hidden_size is the text model's.
        ({"model_type": "qwen2_vl", "patch_size": 14, "hidden_size": 3584, "embed_dim": 1280,
          "num_heads": 16}, 80, "half", rs.Sections((20, 20), **AXIAL)),
        ({"model_type": "qwen2_5_vl", "patch_size": 14, "hidden_size": 1280, "num_heads": 16},
         80, "half", rs.Sections((20, 20), **AXIAL)),
        ({"model_type": "qwen3_vl_vision", "patch_size": 16, "hidden_size": 1152, "num_heads": 16},
         72, "half", rs.Sections((18, 18), **AXIAL)),
        ({"model_type": "pixtral", "head_dim": 64, "hidden_size": 1024, "rope_theta": 10000.0},
         64, "half", rs.Sections((16, 16), frequencies="strided")),
        ({"model_type": "llama4_vision_model", "hidden_size": 1408, "num_attention_heads": 16},
         88, "interleaved", rs.Sections((22, 22), **AXIAL)),
        ({"model_type": "gemma4_vision", "head_dim": 64, "rope_theta": 10000.0},
         64, "half", rs.Sections((16, 16), pairing="within", **AXIAL)),
        ({"model_type": "dinov3_vit", "hidden_size": 1024, "num_attention_heads": 16,
          "rope_theta": 10000.0}, 64, "half", rs.Sections((16, 16), **AXIAL)),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_vision_towers(
    config: dict[str, Any], head_dim: int, layout: Any, sections: rs.Sections
) -> None:
    """What public cards say of them; the models' code is compared in `tests.catalog`."""
    spec = rs.RotarySpec(head_dim, layout=layout, sections=sections)
    assert rs.from_hf_config(config) == spec


def test_time_beside_rows_and_columns_leaves_lanes_over() -> None:
    """Three axes share 78 of 80 lanes equally."""
    spec = rs.from_hf_config({"model_type": "minimax_m3_vl_vision", "head_dim": 80})
    sections = rs.Sections((13, 13, 13), **AXIAL)
    assert spec == rs.RotarySpec(80, layout="half", rotary_dim=78, sections=sections)
