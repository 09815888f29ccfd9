"""Every embedding of transformers with several positions per token, against the specs of its kind.

The classes are found by their method that deals out the axes, so that a new one fails here until
`rotary_spec.huggingface.families` knows it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import SpecError
from rotary_spec.huggingface import families
from rotary_spec.layouts import put_pairs

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rotary_spec_conformance.catalog.transformers_configs import library
from rotary_spec_conformance.catalog.transformers_source import models_folder

DEALS_OUT = "recomposition_frequencies"
# Sizes of their memory attention, not of heads; the rotated keys are cut and padded besides.
OF_MEMORY = {"edgetam_video", "sam2_video", "sam3_tracker_video"}
# The code takes (row, column) and puts the column first; their specs take (column, row).
COLUMN_FIRST = {"inkling2_vision", "kimi_k25_vision", "step3p5_vision"}
# What the default configs lack: sizes that fit each other, and the lanes that the sections fill.
_HALF = {"rope_parameters": {
    "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}  # fmt: skip
GIVEN: dict[str, dict[str, Any]] = {
    "glm4v_text": _HALF, "glm_image_text": _HALF, "glm4v_moe_text": {"head_dim": 128},
    "qwen3_omni_moe_text": {"head_dim": 128},
    "cohere_compass_text": {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": None}},
}  # fmt: skip
POSITIONS = np.array([[0, 3, 250, 41], [7, 1, 0, 99], [2, 200, 5, 64]])


def find() -> Iterator[tuple[str, str]]:
    """Name and module of every such class, by a search of the code: nothing is imported."""
    pattern = re.compile(rf"^class (\w+)|^    def {DEALS_OUT}\b", re.MULTILINE)
    for path in sorted(models_folder().glob("*/modeling_*.py")):
        owner = ""
        for match in pattern.finditer(path.read_text(encoding="utf-8")):
            if match[1] is None:
                yield owner, f"transformers.models.{path.parent.name}.{path.stem}"
            owner = match[1] or owner


MODULES = dict(find())


def load(name: str) -> tuple[type, type]:
    """A class, and its config class."""
    with library():
        module = import_module(MODULES[name])
    cls = getattr(module, name)
    annotation = inspect.signature(cls).parameters["config"].annotation
    return cls, getattr(module, annotation) if isinstance(annotation, str) else annotation


def test_the_search_finds_them() -> None:
    assert len(MODULES) >= 50
    assert {"Qwen2VLRotaryEmbedding", "PixtralVisionRotaryEmbedding", "NeoMMERotaryEmbedding",
            "Ernie4_5_VLMoeTextRotaryEmbedding"} <= set(MODULES)  # fmt: skip


def default_spec(config: Any) -> tuple[rs.RotarySpec, tuple[str, ...]]:
    """The spec of a config, and the layer type where it has one for each."""
    said = rs.from_hf_config(config)
    if isinstance(said, dict):
        name = next(iter(said))
        return said[name], (name,)
    return said, ()


def tables(cls: type, config: Any, spec: rs.RotarySpec, layer: tuple[str, ...]) -> tuple[Any, Any]:
    """cos and sin of `POSITIONS`, shape (4, lanes), as the class has them."""
    import torch

    assert spec.sections is not None
    axes = POSITIONS[: spec.sections.axes]
    if config.model_type in COLUMN_FIRST:
        axes = axes[::-1].copy()
    ids = torch.asarray(axes)
    if config.model_type in families.MROPE:
        ids = ids[:, None, :]
    else:
        ids = ids.T[None] if config.model_type == "gemma4_vision" else ids.T
    cos, sin = cls(config)(torch.zeros(1), ids, *layer)
    return cos.reshape(4, -1).double().numpy(), sin.reshape(4, -1).double().numpy()


@pytest.mark.parametrize("name", MODULES)
def test_cos_and_sin_are_the_models_own(name: str) -> None:
    cls, config_class = load(name)
    with library():
        config = config_class().get_text_config()
        given = GIVEN.get(config.model_type)
        config = type(config)(**given) if given else config
    if config.model_type in OF_MEMORY:
        with pytest.raises(SpecError, match="config needs head_dim"):
            rs.from_hf_config(config)
        return
    if config.model_type in families.NO_ROTATION:
        config.rope_parameters["mrope_section"] = [16, 16, 16, 16]
        with pytest.raises(SpecError, match=r"mrope_section \[16, .* which is no rotation"):
            rs.from_hf_config(config)
        return
    spec, layer = default_spec(config)
    assert spec.sections is not None
    theirs = tables(cls, config, spec, layer)
    ours = rs.cos_sin(POSITIONS[: spec.sections.axes], spec, dtype=np.float64)
    # An angle is a position times a float32 frequency, rounded: at most 250 radians here, with
    # ln(base) u from the exponent of the frequency and 5 u from four operations.
    angles = POSITIONS[: spec.sections.axes].max() * rs.frequencies(spec)
    bound = 2.0**-24 * (angles * (np.log(spec.base) + 5) + 2)
    lanes = put_pairs(bound, bound, spec, np)
    for table, expected in zip(theirs, ours, strict=True):
        both = put_pairs(expected, expected, spec, np)
        assert table.shape[-1] == spec.rotary_dim
        assert np.all(np.abs(table - both) <= lanes)


def test_hunyuan_vl_is_no_rotation() -> None:
    """Its lanes i and i + 64, one pair, turn by different positions: lengths are not kept."""
    import torch

    cls, config_class = load("HunYuanVLRotaryEmbedding")
    with library():
        config = config_class(head_dim=128)
        config.rope_parameters["mrope_section"] = [16, 16, 16, 16]
    ids = torch.tensor([[[0]], [[0]], [[1]], [[0]]])
    cos, sin = (table[0, 0].numpy() for table in cls(config)(torch.zeros(1), ids))
    x = np.eye(128)[0]  # a unit vector, all in lane 0
    turned = x * cos + np.concatenate([-x[64:], x[:64]]) * sin
    assert np.linalg.norm(turned) == pytest.approx(np.sqrt(1 + np.sin(1.0) ** 2), rel=1e-6)


def test_llama4_vision() -> None:
    """Its patches count rows and columns from 1; the class token, last, does not turn."""
    from transformers.models.llama4.configuration_llama4 import Llama4VisionConfig
    from transformers.models.llama4.modeling_llama4 import Llama4VisionRotaryEmbedding

    config = Llama4VisionConfig()
    spec, _ = default_spec(config)
    theirs = Llama4VisionRotaryEmbedding(config).freqs_ci[:, 0].numpy()
    side = config.image_size // config.patch_size
    row, column = np.divmod(np.arange(side**2), side)
    cos, sin = rs.cos_sin(np.stack([column + 1, row + 1]), spec, dtype=np.float64)
    bound = 2.0**-24 * (side * (np.log(spec.base) + 5) + 2)
    assert np.max(np.abs(theirs[:-1] - (cos + 1j * sin))) <= bound
    assert np.all(theirs[-1] == 1)


def test_dinov3() -> None:
    """Its positions are 2 pi times patch centres between -1 and 1."""
    import torch
    from transformers import DINOv3ViTConfig
    from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding

    config = DINOv3ViTConfig(image_size=64, patch_size=16)
    spec, _ = default_spec(config)
    cos, sin = DINOv3ViTRopePositionEmbedding(config).eval()(torch.zeros(1, 3, 64, 64))
    centre = 2 * np.pi * (2 * (np.arange(4) + 0.5) / 4 - 1)
    grid = np.stack(np.meshgrid(centre, centre, indexing="ij")).reshape(2, -1)
    ours = rs.cos_sin(grid, spec, dtype=np.float64)
    bound = 2.0**-24 * (2 * np.pi * (np.log(spec.base) + 8) + 2)
    for table, expected in zip((cos, sin), ours, strict=True):
        assert np.max(np.abs(table.numpy() - put_pairs(expected, expected, spec, np))) <= bound
