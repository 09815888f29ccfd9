"""The tables of what a config leaves out, against every config class of transformers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rotary_spec.huggingface import families

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rotary_spec_conformance.catalog.transformers_configs import config_names, library
from rotary_spec_conformance.catalog.transformers_source import models_folder

PER_LAYER_TYPE = {"neomme"}  # its configs have rope_parameters for each


@pytest.fixture(scope="module")
def configs() -> dict[str, Any]:
    """Every default config, and the default configs of its parts, by model type."""
    found: dict[str, Any] = {}
    with library():
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        for model_type in config_names():
            cls = CONFIG_MAPPING[model_type]
            for part in (cls, *(getattr(cls, "sub_configs", None) or {}).values()):
                if getattr(part, "model_type", "") and part.model_type not in found:
                    found[part.model_type] = part
    return found


def test_bases(configs: dict[str, Any]) -> None:
    said = {
        name: cls.default_theta
        for name, cls in configs.items()
        if getattr(cls, "default_theta", 1e4) != 1e4 and name not in PER_LAYER_TYPE
    }
    single = {name: base for name, base in said.items() if not isinstance(base, dict)}
    layered = {name: (base["global"], base["local"]) for name, base in said.items()
               if isinstance(base, dict)}  # fmt: skip
    single["dinov3_vit"] = configs["dinov3_vit"]().rope_theta  # its own field
    assert dict(families.BASES) == single
    assert dict(families.BASES_OF_LAYERS) == {**layered, "olmo3": (5e5, None)}  # one default


def test_rotated_shares(configs: dict[str, Any]) -> None:
    said = {}
    with library():
        for name, cls in configs.items():
            if not hasattr(cls, "default_theta"):
                continue
            try:
                parameters = getattr(cls(), "rope_parameters", None) or {}
            except Exception:  # a part that cannot stand alone
                continue
            share = parameters.get("partial_rotary_factor", 1.0)
            if share != 1.0 and "qk_rope_head_dim" not in cls.__dataclass_fields__:
                said[name] = share
    assert dict(families.PARTS) == said


def test_models_that_scale_their_softmax() -> None:
    """By a search of the code; `tests.spec.test_huggingface_models` compares the numbers."""
    pattern = re.compile(r"self\.scaling = yarn_apply_mscale\(")
    folders = {
        path.parent.name
        for path in models_folder().glob("*/modeling_*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert {name.removesuffix("_text") for name in families.SOFTMAX_MSCALE} == folders


def test_models_with_alpha() -> None:
    folders = {
        path.parent.name
        for path in models_folder().glob("*/modeling_*.py")
        if 'rope_parameters["alpha"]' in path.read_text(encoding="utf-8")
    }
    assert {name.removesuffix("_text") for name in families.HUNYUAN} == folders


def test_axial_families(configs: dict[str, Any]) -> None:
    said = {n for n, cls in configs.items() if getattr(cls, "default_rope_type", "") == "axial"}
    sized_by_memory = {"edgetam_video", "sam2_video", "sam3_tracker_video"}
    without_a_rotary_class = {"glm_image_vision"}
    not_by_name = {"dinov3_vit", "llama4_vision_model"}  # their code has it without the name
    assert said - set(families.AXIAL) == sized_by_memory | without_a_rotary_class
    assert set(families.AXIAL) - said == not_by_name


def test_every_name_is_a_model_type(configs: dict[str, Any]) -> None:
    tables = (
        families.INTERLEAVED, families.INTERLEAVED_TO_HALF, families.INVERSE, families.LAST_LANES,
        families.FIXED_BASE, families.BASES, families.BASES_OF_LAYERS, families.SCALES_SLIDING,
        families.PARTS, families.HUNYUAN, families.LONGROPE_NAMES, families.TWO_MAGNITUDES,
        families.SOFTMAX_MSCALE, families.MROPE, families.NO_ROTATION, families.AXIAL,
    )  # fmt: skip
    assert {name for table in tables for name in table} <= set(configs)
