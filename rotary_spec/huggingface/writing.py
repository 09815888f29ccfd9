"""`to_hf_config`: a `RotarySpec` as the keys of a Hugging Face config."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.families import (
    AXIAL,
    BASES_OF_LAYERS,
    INTERLEAVED_TO_HALF,
    MROPE,
    PARTS,
)
from rotary_spec.huggingface.from_config import from_hf_config
from rotary_spec.spec import RotarySpec

_WHY = {
    "layout": "a config says nothing of lanes: the model type's code does",
    "output_layout": "a config says nothing of lanes: the model type's code does",
    "rotary_start": "a config says nothing of lanes: the model type's code does",
    "inverse": "a config says nothing of the direction: the model type's code does",
    "attention_factor": "a config has it inside yarn and longrope only: give it to the schedule",
}
_COUNT_LANES = frozenset({"codegen", "gptj"})
"""Model types that have ``rotary_dim`` and not a share."""


def to_hf_config(spec: RotarySpec, *, model_type: str | None = None) -> dict[str, Any]:
    """The keys of a Hugging Face config that say what a spec says, in transformers 5's spelling.

    ``from_hf_config(to_hf_config(spec)) == spec``, and nothing is returned where that does not
    hold. Merge the keys into a model's config, which has others.

    Parameters
    ----------
    spec : RotarySpec
    model_type : str or None
        The model type the config is for. None: halves, forwards, from the first lane on, as Llama
        and most others rotate; layouts, direction and the order of axes other than that of
        ``mrope_section`` are in the code of a model type, and need one that does them.

    Returns
    -------
    dict
        ``head_dim``, ``rope_parameters`` and, where needed, ``model_type``, ``qk_rope_head_dim``
        and ``max_position_embeddings``; JSON types.

    Raises
    ------
    SpecError
        If such a config cannot say what the spec says. It names the field.

    Examples
    --------
    >>> from rotary_spec import Linear, RotarySpec, to_hf_config
    >>> to_hf_config(RotarySpec(128, layout="half", rotary_dim=64, schedule=Linear(factor=4.0)))
    {'head_dim': 128, 'rope_parameters': {'rope_type': 'linear', 'factor': 4.0, \
'rope_theta': 10000.0, 'partial_rotary_factor': 0.5}}
    """
    if model_type in BASES_OF_LAYERS:
        raise SpecError(f"model_type {model_type!r} has one spec per layer type, not one")
    schedule = spec.schedule.to_dict()
    rope_type = schedule.pop("rope_type")
    if rope_type == "explicit":
        raise SpecError("schedule: a config cannot say explicit frequencies")
    config: dict[str, Any] = {"head_dim": spec.head_dim}
    if model_type is not None:
        config = {"model_type": model_type, **config}
    if model_type in INTERLEAVED_TO_HALF | {"deepseek_v2"}:
        config["qk_rope_head_dim"] = spec.rotary_dim
    if rope_type == "dynamic":
        config["max_position_embeddings"] = schedule.pop("max_position_embeddings")
    if rope_type == "ntk":
        rope_type, schedule = "dynamic", {"alpha": schedule["factor"], "factor": 1.0}
    parameters = {"rope_type": rope_type}
    parameters |= {name: _plain(value) for name, value in schedule.items() if value is not None}
    parameters["rope_theta"] = spec.base
    if model_type in AXIAL:
        parameters["rope_type"] = "axial" if rope_type == "default" else rope_type
    elif model_type in _COUNT_LANES:
        config["rotary_dim"] = spec.rotary_dim
    elif rope_type != "proportional":
        share = _share(spec.rotary_dim, spec.head_dim)
        if share != PARTS.get(model_type or "", 1.0):
            parameters["partial_rotary_factor"] = share
    if spec.sections is not None and model_type not in AXIAL:
        parameters |= _sections(spec, model_type)
    config["rope_parameters"] = parameters
    _check(spec, config)
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _share(lanes: int, head_dim: int) -> float:
    """A factor whose product with head_dim, rounded down, is that many lanes."""
    factor = lanes / head_dim
    return factor if int(head_dim * factor) == lanes else math.nextafter(factor, 2.0)


def _sections(spec: RotarySpec, model_type: str | None) -> dict[str, Any]:
    assert spec.sections is not None
    sizes, order = list(spec.sections.sizes), spec.sections.order
    if order == "spatial_first" and model_type in MROPE:
        sizes = sizes[1:] + sizes[:1]
    said = {"mrope_section": sizes}
    return {**said, "mrope_interleaved": True} if order == "interleaved" else said


def _check(spec: RotarySpec, config: dict[str, Any]) -> None:
    """Raise `SpecError` where the config does not describe the spec."""
    model_type = config.get("model_type")
    of = "a config without a model type" if model_type is None else f"a {model_type!r} config"
    try:
        said = from_hf_config(config)
    except SpecError as error:
        raise SpecError(f"{of} cannot say {spec!r}: {error}") from error
    if not isinstance(said, RotarySpec):
        raise SpecError(f"{of} has one spec per layer type, not one")
    for name in (field.name for field in fields(spec)):
        if getattr(spec, name) != getattr(said, name):
            why = f"; {_WHY[name]}" if name in _WHY else ""
            raise SpecError(
                f"{name}: {of} says {getattr(said, name)!r}, not {getattr(spec, name)!r}{why}"
            )
