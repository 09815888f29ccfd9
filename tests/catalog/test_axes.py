"""Multi-axis embeddings of transformers: checked with a position per axis, and identified."""

from __future__ import annotations

import pytest

import rotary_spec as rs
from rotary_spec import Sections
from rotary_spec_conformance import check, identify
from rotary_spec_conformance.catalog import load

pytest.importorskip("transformers")

EXPECTED = {
    "qwen2_vl_text": rs.RotarySpec(128, base=1e6, layout="half", sections=(16, 24, 24)),
    "qwen3_vl_text": rs.RotarySpec(
        128, base=5e5, layout="half", sections=Sections((24, 20, 20), "interleaved")
    ),
    "qwen3_5_text": rs.RotarySpec(
        256, layout="half", rotary_dim=64, sections=Sections((11, 11, 10), "interleaved")
    ),
    "ernie4_5_vl_moe_text": rs.RotarySpec(
        128, base=5e5, sections=Sections((20, 22, 22), "spatial_first")
    ),
    "glm_ocr_text": rs.RotarySpec(64, sections=(8, 12, 12)),
    "qwen2_vl_vision": rs.RotarySpec(
        80, layout="half", sections=Sections((20, 20), frequencies="restart")
    ),
    "pixtral": rs.RotarySpec(64, layout="half", sections=Sections((16, 16), frequencies="strided")),
    "gemma4_vision": rs.RotarySpec(
        64,
        base=100.0,
        layout="half",
        sections=Sections((16, 16), frequencies="restart", pairing="within"),
    ),
    "kimi_k25_vision": rs.RotarySpec(
        72, layout="half", sections=Sections((18, 18), "interleaved", "restart")
    ),
    "minimax_m3_vl_vision": rs.RotarySpec(
        80, layout="half", rotary_dim=78, sections=Sections((13, 13, 13), frequencies="restart")
    ),
}


@pytest.mark.parametrize("model_type", EXPECTED)
def test_they_do_what_their_configs_say(model_type):
    target, spec = load(f"transformers:{model_type}")
    assert spec == EXPECTED[model_type]
    report = check(target, spec, quick=True)
    assert report.ok, str(report)
    passed = {result.clause for result in report.results if result.status == "pass"}
    assert {"AXIS-1", "AXIS-2", "POS-2"} <= passed
    assert identify(target).spec == spec


def test_a_config_of_ones_own(tmp_path):
    """glm4v's default config has sections that its heads do not fit."""
    config = tmp_path / "config.json"
    config.write_text(
        """{"model_type": "glm4v_text", "hidden_size": 4096, "num_attention_heads": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}}""",
        encoding="utf-8",
    )
    target, spec = load("transformers:glm4v_text", config=str(config))
    assert spec == rs.RotarySpec(128, rotary_dim=64, sections=(8, 12, 12))
    report = check(target, spec, quick=True)
    assert report.ok, str(report)
    assert target.axes == 3
