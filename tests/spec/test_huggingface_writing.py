"""`to_hf_config`: what it writes is read as the same spec, or it names the field it cannot say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from rotary_spec import SpecError
from rotary_spec.huggingface import families
from tests import strategies

_factors = st.floats(1.0, 1e3)
_lengths = st.integers(2, 2**20)
_lists = st.lists(st.floats(0.5, 100.0), min_size=8, max_size=8)


@st.composite
def _yarn(draw: st.DrawFn) -> rs.Yarn:
    slow, fast = sorted((draw(st.floats(0.5, 64.0)), draw(st.floats(0.5, 64.0))))
    optional = st.none() | st.floats(0.1, 4.0)
    return rs.Yarn(
        draw(_factors), draw(_lengths), fast, slow, draw(st.booleans()),
        draw(optional), draw(optional), draw(optional),
    )  # fmt: skip


said_by_a_config = (
    strategies.schedules
    | st.builds(rs.Ntk, _factors)
    | st.builds(rs.DynamicNtk, _factors, _lengths)
    | _yarn()
    | st.builds(rs.LongRope, _lists, _lists, _lengths, _factors, st.none() | st.floats(0.1, 4.0))
)


@given(data=st.data(), schedule=said_by_a_config, base=st.floats(2.0, 1e7))
def test_round_trip(data: Any, schedule: rs.Schedule, base: float) -> None:
    """Every spec of the usual kind is written; JSON between changes nothing."""
    head_dim = data.draw(st.integers(8, 256)) * 2
    sections = data.draw(st.sampled_from((None, (2, 3, 3), rs.Sections((3, 3, 2), "interleaved"))))
    spec = rs.RotarySpec(
        head_dim, base=base, layout="half", rotary_dim=16, schedule=schedule, sections=sections
    )
    assert rs.from_hf_config(json.loads(json.dumps(rs.to_hf_config(spec)))) == spec


@given(head_dim=st.integers(1, 2**12).map(lambda n: 2 * n), data=st.data())
def test_every_rotated_share_comes_back(head_dim: int, data: Any) -> None:
    lanes = 2 * data.draw(st.integers(1, head_dim // 2))
    spec = rs.RotarySpec(head_dim, layout="half", rotary_dim=lanes)
    assert rs.from_hf_config(rs.to_hf_config(spec)) == spec


MODEL_TYPES = (
    None, "llama", "cohere", "deepseek_v3", "nanochat", "deepseek_v4", "gptj", "qwen2_vl_text",
)  # fmt: skip


@given(spec=strategies.specs(), model_type=st.sampled_from(MODEL_TYPES))
def test_what_is_written_is_the_spec(spec: rs.RotarySpec, model_type: str | None) -> None:
    try:
        config = rs.to_hf_config(spec, model_type=model_type)
    except SpecError:
        return
    assert rs.from_hf_config(config) == spec


HALF = rs.RotarySpec(128, layout="half")
AXIAL = rs.Sections((16, 16), frequencies="restart")


@pytest.mark.parametrize(
    ("spec", "model_type"),
    [
        (rs.RotarySpec(128), "cohere"),
        (rs.RotarySpec(64, output_layout="half"), "deepseek_v3"),
        (rs.RotarySpec(64, schedule=rs.Yarn(40, 4096, mscale=1, mscale_all_dim=1)), "deepseek_v2"),
        (rs.RotarySpec(256, rotary_dim=64), "gptj"),
        (rs.RotarySpec(512, rotary_dim=64, rotary_start=448), "deepseek_v4"),
        (replace(HALF, inverse=True), "nanochat"),
        (replace(HALF, rotary_dim=32), "gpt_neox"),
        (replace(HALF, rotary_dim=64), "gpt_neox"),
        (replace(HALF, schedule=rs.Ntk(1000.0)), "hunyuan_v1_dense"),
        (replace(HALF, schedule=rs.Proportional(0.25)), None),
        (replace(HALF, sections=(16, 24, 24)), "qwen2_vl_text"),
        (replace(HALF, sections=rs.Sections((24, 20, 20), "interleaved")), "qwen3_vl_text"),
        (rs.RotarySpec(128, sections=rs.Sections((20, 22, 22), "spatial_first")),
         "ernie4_5_vl_moe_text"),
        (rs.RotarySpec(64, layout="half", sections=AXIAL), "qwen2_vl_vision"),
        (rs.RotarySpec(64, layout="half", sections=replace(AXIAL, frequencies="strided")),
         "pixtral"),
        (rs.RotarySpec(64, layout="half", sections=replace(AXIAL, pairing="within")),
         "gemma4_vision"),
        (rs.RotarySpec(64, sections=replace(AXIAL, order="chunked")), "llama4_vision_model"),
    ],
    ids=lambda value: str(value)[11:60],
)  # fmt: skip
def test_model_types_say_the_rest(spec: rs.RotarySpec, model_type: str | None) -> None:
    config = rs.to_hf_config(spec, model_type=model_type)
    assert rs.from_hf_config(config) == spec
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(
    ("spec", "model_type", "said"),
    [
        (rs.RotarySpec(128), None, "layout: a config without a model type says 'half'"),
        (HALF, "cohere", "layout: a 'cohere' config says 'interleaved', not 'half'"),
        (rs.RotarySpec(64), "deepseek_v3", "output_layout: a 'deepseek_v3' config says 'half'"),
        (replace(HALF, inverse=True), "llama", "inverse: .* says False, not True"),
        (replace(HALF, rotary_dim=64, rotary_start=64), None, "rotary_start: .* says 0, not 64"),
        (replace(HALF, attention_factor=2.0), None, "attention_factor: .* give it to the schedule"),
        (replace(HALF, base=5e5, layout="interleaved"), "gptj", "base: .* says 10000.0"),
        (replace(HALF, schedule=rs.Explicit([1.0] * 64)), None, "schedule: .* explicit"),
        (replace(HALF, schedule=rs.Ntk(8)), "llama", "'llama' config cannot say .* 'alpha'"),
        (replace(HALF, rotary_dim=64, schedule=rs.Proportional(0.5)), None, "rotary_dim: .* 128"),
        (
            replace(HALF, sections=AXIAL, rotary_dim=64),
            None,
            r"sections: .* says Sections\(\(16, 16\)\), not",
        ),
        (
            replace(HALF, sections=(24, 20, 20)),
            "qwen3_vl_text",
            "sections: .* says .*order='interleaved'",
        ),
        (HALF, "qwen2_vl_text", "sections: .* not None"),
        (HALF, "pixtral", "sections: .* not None"),
        (HALF, "gemma3_text", "'gemma3_text' has one spec per layer type"),
        (replace(HALF, rotary_dim=64), "deepseek_v2", "head_dim: .* says 64, not 128"),
    ],
    ids=lambda value: str(value)[11:60],
)
def test_the_field_that_cannot_be_said(
    spec: rs.RotarySpec, model_type: str | None, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        rs.to_hf_config(spec, model_type=model_type)


@pytest.mark.parametrize(
    ("spec", "model_type"),
    [
        (replace(HALF, base=5e5, schedule=rs.Llama3(8.0, 1.0, 4.0, 8192)), "llama"),
        (replace(HALF, schedule=rs.DynamicNtk(2.0, 4096)), "llama"),
        (replace(HALF, schedule=rs.Yarn(8.0, 4096, truncate=False)), "qwen2"),
        (replace(HALF, rotary_dim=64, schedule=rs.Linear(2.0)), "stablelm"),
        (replace(HALF, rotary_dim=32), "glm4_moe"),
        (replace(HALF, schedule=rs.Ntk(1000.0)), "hunyuan_v1_dense"),
        (rs.RotarySpec(128, base=8e6), "cohere"),
        (rs.RotarySpec(64, output_layout="half", schedule=rs.Yarn(40, 4096)), "deepseek_v3"),
        (replace(HALF, sections=(16, 24, 24)), "qwen2_vl_text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_transformers_computes_what_was_written(spec: rs.RotarySpec, model_type: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.spec.transformers_rope import assert_same, config_object, numbers, rotary_class

    values = {"qwen2_vl_text": "qwen2_vl"}.get(model_type, model_type)
    config = config_object({**rs.to_hf_config(spec, model_type=model_type), "model_type": values})
    cls = rotary_class(config)
    assert cls is not None
    assert_same(numbers(cls(config), None, None), spec, None)


def test_every_axial_family_is_written() -> None:
    """Each names one spec of a size, and that spec names the family."""
    for model_type in sorted(families.AXIAL):
        spec = rs.from_hf_config({"model_type": model_type, "head_dim": 96})
        assert isinstance(spec, rs.RotarySpec)
        assert rs.from_hf_config(rs.to_hf_config(spec, model_type=model_type)) == spec
