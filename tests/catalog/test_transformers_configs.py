"""Targets from a given config, what a config claims, and targets by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import rotary_spec as rs
from rotary_spec import TargetError

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rotary_spec_conformance import check
from rotary_spec_conformance.catalog import is_listed, load, names_of
from rotary_spec_conformance.catalog import transformers_any as catalog
from rotary_spec_conformance.catalog.transformers_build import Built
from rotary_spec_conformance.catalog.transformers_claims import claimed_spec, verdict
from rotary_spec_conformance.identification.identify import identify
from tests.catalog.building import built

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0},
}


class TestConfigs:
    def test_path_mapping_and_object(self, tmp_path: Path) -> None:
        from transformers import LlamaConfig

        path = tmp_path / "config.json"
        path.write_text(json.dumps(SMALL), encoding="utf-8")
        spec = rs.RotarySpec(16, base=5e5, layout="half", schedule=rs.Linear(4.0))
        for given in (path, str(path), SMALL, LlamaConfig.from_dict(SMALL)):
            target, spec_of_config = load("transformers:llama", config=given)  # type: ignore[arg-type]
            assert target.head_dim == 16
            assert spec_of_config == spec

    def test_the_part_that_is_meant(self) -> None:
        around = {"model_type": "llava", "text_config": SMALL}
        [(target, _)] = catalog.targets("llama", around)
        assert target.head_dim == 16

    def test_another_model_types_config(self) -> None:
        with pytest.raises(TargetError, match="of model type llama, not qwen3"):
            catalog.targets("qwen3", SMALL)

    def test_a_config_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match=r"absent\.json' cannot be read"):
            catalog.targets("llama", tmp_path / "absent.json")

    def test_a_flag_of_the_config_chooses_the_function(self) -> None:
        [one] = catalog.build(
            "deepseek_v3", {"model_type": "deepseek_v3", "rope_interleave": False}
        )
        assert isinstance(one, Built)
        assert identify(one.target, verify=False).layout == "half"
        assert claimed_spec(one).layout == "half"

    def test_what_a_config_claims_is_compared(self) -> None:
        one = built("llama")
        found = identify(one.target, verify=False)
        for field, value, said in (
            ("rope_theta", 2e4, "no: pair 63 turns by"),
            ("partial_rotary_factor", 0.5, "no: 128 lanes turn, the config says 64"),
        ):
            claims = {
                **one.config.to_dict(),
                "rope_parameters": {"rope_type": "default", field: value},
            }
            config = type(one.config).from_dict(claims)
            assert verdict(replace(one, config=config), found).startswith(said)


class TestCatalog:
    def test_any_model_type_can_be_named(self) -> None:
        assert is_listed("transformers:qwen3")
        assert names_of("transformers:qwen3") == ["transformers:qwen3"]
        assert names_of("transformers:gemma3_text") == [
            "transformers:gemma3_text:full_attention",
            "transformers:gemma3_text:sliding_attention",
        ]
        assert names_of("transformers:nothing") == ["transformers:nothing"]  # `load` says why

    @pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "phi", "clvp_encoder"])
    def test_it_conforms_to_what_its_config_says(self, name: str) -> None:
        target, spec = load(f"transformers:{name}")
        report = check(target, spec, quick=True, dtypes=["float32"])
        assert report.ok, report

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("transformers:nothing", "'nothing' is not a model type"),
            ("transformers:gemma3_text", "one of several: .*full_attention, .*sliding_attention"),
            ("transformers:jamba", "called nowhere"),
            ("transformers:glm4_moe", "its config: hidden_size 4096 is not a multiple"),
        ],
    )
    def test_what_cannot_be_loaded_says_why(self, name: str, said: str) -> None:
        with pytest.raises(TargetError, match=said):
            load(name)
