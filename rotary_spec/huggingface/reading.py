"""From a ``config.json`` to what the layers of one type see of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.families import (
    AXIAL,
    BASES_OF_LAYERS,
    INTERLEAVED,
    INTERLEAVED_TO_HALF,
    LAST_LANES,
    NO_ROTATION,
    PARTS,
    SCALES_SLIDING,
)
from rotary_spec.schedules import positive
from rotary_spec.spec import Layout, integer

Config = str | PathLike[str] | Mapping[str, Any] | object
Values = Mapping[str, Any]

BASE_NAMES = "rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta"
PART_NAMES = "rotary_dim", "partial_rotary_factor", "rotary_pct", "qk_rope_head_dim"
_HEAD_DIM_NAMES = "head_dim", "attention_head_dim", "kv_channels", "d_kv"
_WIDTH_NAMES = "hidden_size", "n_embd", "d_model", "embed_dim"
_HEADS_NAMES = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_num_attention_heads",
    "speech_encoder_attention_heads",
)  # fmt: skip
_LOCAL_BASE_NAMES = "rope_local_base_freq", "local_rope_theta"
_EMBED_DIM = frozenset({"qwen2_vl_vision"})  # its hidden_size is that of what it gives
ORIGINAL_LENGTH = "original_max_position_embeddings"
_FULL, _SLIDING = "full_attention", "sliding_attention"


def read_config(config: Config) -> Values:
    """The contents of a config, given in any of the ways that `from_hf_config` takes."""
    if isinstance(config, Mapping):
        return config
    if isinstance(config, str | PathLike):
        path = Path(config)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"config {str(path)!r} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SpecError(f"config {str(path)!r} is not JSON: {error}") from error
        if isinstance(values, dict):
            return values
        raise SpecError(f"config {str(path)!r} must hold a JSON object")
    if hasattr(config, "to_dict"):
        return dict(config.to_dict())
    raise SpecError(
        f"config must be a path, a mapping or an object with to_dict(), got {type(config).__name__}"
    )


def model_type_of(values: Values) -> str:
    """The config's model type; "" where it has none.

    Cards of Qwen2-VL and Qwen2.5-VL give their vision towers the name of the whole.
    """
    name = str(values.get("model_type") or "")
    tower = f"{name}_vision"
    return tower if "patch_size" in values and tower in AXIAL else name


def first(values: Values, *names: str) -> Any:
    """The first of these keys that is there and not None."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def parameters_of(values: Values) -> Mapping[str, Any]:
    """``rope_parameters``, or ``rope_scaling`` as transformers 4 spelt it; flat or nested."""
    new, old = values.get("rope_parameters") or {}, values.get("rope_scaling") or {}
    for name, given in (("rope_parameters", new), ("rope_scaling", old)):
        if not isinstance(given, Mapping):
            raise SpecError(f"{name} must be a mapping, got {given!r}")
    if new and old and any(new.get(name, value) != value for name, value in old.items()):
        raise SpecError(
            f"rope_parameters and rope_scaling are two spellings of one thing and must agree, "
            f"got {dict(new)} and {dict(old)}"
        )
    return new or old


def layer_types_of(values: Values) -> tuple[str, ...]:
    """The layer types that a config has schedules for; empty where one schedule serves all."""
    parameters = parameters_of(values)
    nested = tuple(name for name, value in parameters.items() if isinstance(value, Mapping))
    if nested:
        return nested
    local = first(values, *_LOCAL_BASE_NAMES) is not None
    return (_FULL, _SLIDING) if local or model_type_of(values) in BASES_OF_LAYERS else ()


def of_layer(values: Values, layer_type: str | None) -> dict[str, Any]:
    """The config as layers of one type see it, with flat ``rope_parameters`` and their base."""
    types, parameters = layer_types_of(values), parameters_of(values)
    if types and layer_type not in types:
        if layer_type in parameters:  # a layer type that does not rotate is there with None
            raise SpecError(f"layer_type {layer_type!r}: its layers do not rotate")
        raise SpecError(f"layer_type must be one of {', '.join(types)}, got {layer_type!r}")
    own: Mapping[str, Any] = parameters
    if any(isinstance(value, Mapping) for value in parameters.values()):
        shared = {n: v for n, v in parameters.items() if n not in types and v is not None}
        # A top-level original length wins over a flat one only, as in transformers.
        own = {**shared, **parameters[str(layer_type)]}
        values = {name: v for name, v in values.items() if name != ORIGINAL_LENGTH}
    elif types:
        own = _flat_layer(values, parameters, sliding=layer_type == _SLIDING)
    seen = {**values, **_first_layer(values, layer_type), "rope_parameters": dict(own)}
    if layer_type == _FULL and values.get("global_head_dim") is not None:
        seen["head_dim"] = values["global_head_dim"]
    return seen


def _flat_layer(values: Values, parameters: Values, *, sliding: bool) -> Values:
    """What a flat config with two bases says of one of its two layer types."""
    model_type = model_type_of(values)
    full, local = BASES_OF_LAYERS.get(model_type, (None, None))
    base = first(values, *BASE_NAMES)
    base = full if base is None else base
    if not sliding:
        return {"rope_theta": base, **parameters}
    own = first(values, *_LOCAL_BASE_NAMES)
    own = local if own is None else own
    scaling = parameters if model_type in SCALES_SLIDING else {}
    return {**scaling, "rope_theta": base if own is None else own}


def _first_layer(values: Values, layer_type: str | None) -> Values:
    """What the first layer of a type overrides, where layers have configs of their own."""
    types, layers = values.get("layer_types") or [], values.get("per_layer_config")
    if layer_type not in types or not isinstance(layers, Mapping):
        return {}
    index = str(types.index(layer_type))
    return next((own for key, own in layers.items() if (str(key).lstrip("0") or "0") == index), {})


def dims_of(values: Values) -> tuple[int, int]:
    """head_dim and rotary_dim."""
    part = values.get("qk_rope_head_dim")
    if part is not None and model_type_of(values) not in LAST_LANES:
        # Multi-head latent attention: a part of the head, cut off before, is rotated whole.
        part = _even("qk_rope_head_dim", integer("qk_rope_head_dim", part))
        return part, part
    head_dim = _head_dim(values)
    return head_dim, _rotary_dim(values, head_dim)


def _head_dim(values: Values) -> int:
    given = first(values, *_HEAD_DIM_NAMES)
    if given is not None:
        return integer("head_dim", given)
    widths = reversed(_WIDTH_NAMES) if model_type_of(values) in _EMBED_DIM else _WIDTH_NAMES
    width, heads = first(values, *widths), first(values, *_HEADS_NAMES)
    if width is None or heads is None:
        parts = [name for name, value in values.items() if _is_config(name, value)]
        hint = f". It holds {', '.join(parts)}: pass one of them" if parts else ""
        raise SpecError(f"config needs head_dim, or hidden_size and num_attention_heads{hint}")
    width, heads = integer("hidden_size", width), integer("num_attention_heads", heads)
    if heads <= 0 or width % heads:
        raise SpecError(
            f"hidden_size {width} is not a multiple of num_attention_heads {heads}: give head_dim"
        )
    return width // heads


def _is_config(name: str, value: object) -> bool:
    return name.endswith("_config") and isinstance(value, Mapping)


def _rotary_dim(values: Values, head_dim: int) -> int:
    model_type, parameters = model_type_of(values), values["rope_parameters"]
    if values.get("rotary_dim") is not None:
        return integer("rotary_dim", values["rotary_dim"])
    if rope_type_of(values) == "proportional":
        return head_dim  # its factor thins out the frequencies, over the whole width
    if model_type in AXIAL:
        axes = AXIAL[model_type].number
        return head_dim // (2 * axes) * 2 * axes if axes > 2 else head_dim
    factor = first(parameters, "partial_rotary_factor")
    if factor is None:
        factor = first(values, "partial_rotary_factor", "rotary_pct")
    if factor is None:
        factor = PARTS.get(model_type, 1.0)
    factor = positive("partial_rotary_factor", factor)
    lanes = int(head_dim * factor)
    name = f"partial_rotary_factor {factor:g} of head_dim {head_dim}, rounded down,"
    if lanes > head_dim:
        raise SpecError(f"{name} must not exceed head_dim, got {lanes}")
    return _even(name, lanes)


def _even(name: str, lanes: int) -> int:
    if lanes <= 0 or lanes % 2:
        raise SpecError(
            f"{name} must be even and positive, because features rotate in pairs; got {lanes}"
        )
    return lanes


def rope_type_of(values: Values) -> str:
    """``rope_type``, or ``type`` as it was called before."""
    parameters = values["rope_parameters"]
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def layouts_of(values: Values) -> tuple[Layout, Layout | None]:
    """Layout of the input and, where it differs, of the output."""
    model_type = model_type_of(values)
    if model_type in INTERLEAVED_TO_HALF and values.get("rope_interleave", True):
        return "interleaved", "half"
    return ("interleaved" if model_type in INTERLEAVED else "half"), None


def refuse_unsayable(values: Values) -> None:
    """Raise `SpecError` for a model type whose code is no rotation."""
    why = NO_ROTATION.get(model_type_of(values))
    sections = first(values["rope_parameters"], "mrope_section", "xdrope_section")
    if why is not None and sections is not None:
        raise SpecError(f"mrope_section {sections!r}: {why}")
