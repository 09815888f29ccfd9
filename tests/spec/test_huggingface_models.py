"""Configs from public model cards, against what transformers computes from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import rotary_spec as rs

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.spec.transformers_rope import (
    U,
    assert_same,
    config_object,
    lengths,
    numbers,
    rotary_class,
)

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "hf_configs.json").read_text(encoding="utf-8")
)
"""The keys that bear on the rotation, and sizes. Where a card's LongRoPE lists are too long to be
known by heart, lists of their length stand in, and the name says so."""

# Their rotation is inside the attention or in a table; `tests.catalog` compares them as a whole.
WITHOUT_A_MODULE = {"codegen", "gptj", "roformer"}


# Compared one by one below, because their modules do not hold what they rotate by.
OTHER_THAN_ITS_CONFIG = {"phimoe", "ernie4_5_vl_moe_text"}


def specs_of(values: dict[str, Any]) -> list[tuple[str | None, rs.RotarySpec]]:
    said = rs.from_hf_config(values)
    return list(said.items()) if isinstance(said, dict) else [(None, said)]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_object_says_the_same(name: str) -> None:
    """What a card leaves out, the config class fills in: with what we take for it."""
    values = CONFIGS[name]
    config = config_object(values)
    ours, theirs = rs.from_hf_config(values), rs.from_hf_config(config)
    if isinstance(theirs, dict) and not isinstance(ours, dict):
        theirs = theirs["full_attention"]
    assert ours == theirs


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, v in CONFIGS.items()
        if v["model_type"] not in WITHOUT_A_MODULE | OTHER_THAN_ITS_CONFIG
    ],
)
def test_the_models_own_module(name: str) -> None:
    """inv_freq and attention factor to float32's rounding, on both sides of each switch."""
    values = CONFIGS[name]
    cls = rotary_class(config_object(values))
    assert cls is not None
    for layer_type, spec in specs_of(values):
        for seq_len in lengths(spec, values.get("max_position_embeddings")):
            module = cls(config=config_object(values))
            assert_same(numbers(module, layer_type, seq_len), spec, seq_len)


@pytest.mark.parametrize(
    "name",
    [n for n, v in CONFIGS.items() if v.get("rope_scaling") or v.get("rope_parameters")],
)
def test_transformers_functions(name: str) -> None:
    """The same of `ROPE_INIT_FUNCTIONS`, which take the length as an argument."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    values = CONFIGS[name]
    config = config_object(values)
    for layer_type, spec in specs_of(values):
        function = ROPE_INIT_FUNCTIONS.get(spec.schedule.rope_type)
        if function is None:  # the plain schedule, and HunYuan's, are in the models' code
            assert isinstance(spec.schedule, rs.Default | rs.Ntk)
            continue
        for seq_len in lengths(spec, values.get("max_position_embeddings")):
            inv_freq, magnitude = function(
                config, torch.device("cpu"), seq_len=seq_len, layer_type=layer_type
            )
            if values["model_type"] == "phimoe":  # its code has the magnitude elsewhere
                magnitude = values["rope_scaling"]["long_mscale"]
            assert_same((inv_freq.double().numpy(), magnitude), spec, seq_len)


def test_phi_3_5_moe_never_takes_its_long_list() -> None:
    """Its forward asks for the frequencies anew, without a length: the short ones, always.

    The magnitude is chosen by the length, and is the config's.
    """
    import torch
    from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding

    name = "microsoft/Phi-3.5-MoE-instruct, lists of its length"
    spec = rs.from_hf_config(CONFIGS[name])
    module = PhimoeRotaryEmbedding(config_object(CONFIGS[name]))
    for seq_len in (4096, 4097):
        cos, sin = (t[0, 0, :64].double().numpy() for t in module(
            torch.zeros(1), torch.tensor([[seq_len - 1]])))  # fmt: skip
        magnitude = rs.attention_factor(spec, seq_len)
        np.testing.assert_allclose(np.hypot(cos, sin), magnitude, rtol=4 * U)
        short = rs.cos_sin(np.array([seq_len - 1]), spec, seq_len=1, dtype=np.float64)
        angle = seq_len * rs.frequencies(spec, 1) * (math.log(spec.base) + 7) * U
        bound = magnitude * (angle + 3 * U)
        assert np.all(np.abs(cos - short[0][0]) <= bound)
        assert np.all(np.abs(sin - short[1][0]) <= bound)
    assert not np.array_equal(rs.frequencies(spec, 4096), rs.frequencies(spec, 4097))


def test_ernie_vl_sorts_its_frequencies_by_axis() -> None:
    """First those of rows, then of columns, then of time; what its forward gives is compared in
    `tests.catalog.test_transformers_axes`.
    """
    name = "baidu/ERNIE-4.5-VL-28B-A3B-PT (text_config)"
    spec = rs.from_hf_config(CONFIGS[name])
    config = config_object(CONFIGS[name])
    inv_freq, magnitude = numbers(rotary_class(config)(config), None, None)
    axis_of_pair = np.array(spec.sections.axis_of_pair())
    pairs = np.concatenate([np.flatnonzero(axis_of_pair == axis) for axis in (1, 2, 0)])
    in_order = np.empty_like(inv_freq)
    in_order[pairs] = inv_freq
    assert_same((in_order, magnitude), spec, None)


class TestDifferences:
    """Where transformers 5.23.0 does something else than its config says; the spec does not."""

    LISTS: ClassVar = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}

    def test_phi3s_first_name_of_longrope(self) -> None:
        """It is renamed after the original length was to be put beside the factors."""
        from transformers import Phi3Config

        config = {
            "hidden_size": 3072, "num_attention_heads": 32, "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096, "rope_scaling": {"type": "su", **self.LISTS},
        }  # fmt: skip
        spec = rs.from_hf_config({"model_type": "phi3", **config})
        schedule = rs.LongRope(*self.LISTS.values(), 4096, factor=32.0)
        assert spec == rs.RotarySpec(96, layout="half", schedule=schedule)
        with pytest.raises(KeyError, match="original_max_position_embeddings"):
            Phi3Config(**config)

    def test_truncate_of_a_layer_type_is_not_read(self) -> None:
        """YaRN looks for it beside the layer types instead of inside."""
        import torch
        from transformers import Gemma3TextConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        yarn = {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 8.0, "truncate": False,
            "original_max_position_embeddings": 4096,
        }  # fmt: skip
        config = Gemma3TextConfig(head_dim=128, rope_parameters={
            "full_attention": yarn, "sliding_attention": {"rope_type": "default"}})  # fmt: skip
        inv_freq, magnitude = ROPE_INIT_FUNCTIONS["yarn"](
            config, torch.device("cpu"), layer_type="full_attention"
        )
        spec = rs.from_hf_config(config, layer_type="full_attention")
        assert spec.schedule == rs.Yarn(8.0, 4096, truncate=False)
        theirs = inv_freq.double().numpy(), magnitude
        with pytest.raises(AssertionError):
            assert_same(theirs, spec, None)
        assert_same(theirs, rs.RotarySpec(128, base=1e6, schedule=rs.Yarn(8.0, 4096)), None)

    @pytest.mark.parametrize("rope_type", ["dynamic", "yarn", "longrope"])
    def test_an_empty_head_dim_is_multiplied(self, rope_type: str) -> None:
        """Three of the functions take ``head_dim: None`` for a number."""
        import torch
        from transformers import MistralConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        given = {"rope_type": rope_type, "factor": 2.0, "original_max_position_embeddings": 64,
                 "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}  # fmt: skip
        config = MistralConfig(hidden_size=128, num_attention_heads=4, rope_parameters=given)
        config.head_dim = None
        assert rs.from_hf_config(config, ignore_unknown=True).head_dim == 32
        with pytest.raises(TypeError, match="NoneType"):
            ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"))

    def test_olmo3_takes_its_base_twice(self) -> None:
        """``rope_theta`` is popped for full attention, so sliding attention gets the default."""
        from transformers import Olmo3Config

        flat = {
            "model_type": "olmo3",
            "hidden_size": 64,
            "num_attention_heads": 2,
            "rope_theta": 1e4,
        }
        config = Olmo3Config.from_dict({k: v for k, v in flat.items() if k != "model_type"})
        ours, theirs = rs.from_hf_config(flat), rs.from_hf_config(config)
        assert ours["full_attention"] == theirs["full_attention"]
        assert ours["sliding_attention"].base == 1e4
        assert theirs["sliding_attention"].base == 5e5


@pytest.mark.parametrize("model_type", ["deepseek_v2", "deepseek_v3", "minicpm3", "glm4_moe_lite"])
@pytest.mark.parametrize("share", [0.707, 1.0, 0, None])
def test_softmax_factor(model_type: str, share: float | None) -> None:
    """Against the ``scaling`` of the model's attention."""
    from importlib import import_module

    yarn = {**CONFIGS["deepseek-ai/DeepSeek-V3"]["rope_scaling"], "mscale_all_dim": share}
    values = {"model_type": model_type, "hidden_size": 32, "num_attention_heads": 2,
              "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "rope_scaling": yarn}  # fmt: skip
    config = config_object(values)
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    name = type(config).__name__.removesuffix("Config")
    attention = getattr(module, f"{name}Attention", None) or getattr(module, f"{name}MLAAttention")
    usual = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    for given in (values, config):
        factor = rs.hf_softmax_factor(given)
        assert math.isclose(attention(config, 0).scaling, usual * factor, rel_tol=4 * 2.0**-53)
    assert (factor > 1) is bool(share)
    assert rs.hf_softmax_factor({**values, "model_type": "llama"}) == 1.0
