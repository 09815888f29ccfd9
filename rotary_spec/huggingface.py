"""Hugging Face ``config.json`` to `RotarySpec`.

Reads both spellings: ``rope_parameters`` (transformers 5) and ``rope_scaling`` with a top-level
``rope_theta`` (transformers 4). A config says nothing about lanes and direction; the sets below
name the model types whose code differs from Llama's, which pairs halves and turns by +m theta.
``rotary-spec survey transformers`` measures them, and a test holds the sets against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.scaling import Ntk
from rotary_spec.schedules import Default, Schedule, positive, schedule_from_dict
from rotary_spec.spec import Layout, RotarySpec, integer

INTERLEAVED = frozenset({
    "blt_global_transformer", "blt_local_decoder", "blt_local_encoder", "blt_patcher", "codegen",
    "cohere", "cohere2", "cohere2_moe", "deepseek_v2", "deepseek_v4", "edgetam_video", "ernie4_5",
    "ernie4_5_moe", "ernie4_5_vl_moe_text", "glm", "glm4", "glm4v_text", "glm_ocr_text", "gptj",
    "helium", "inkling2_vision", "llama4", "llama4_text", "moonshine", "moonshine_streaming",
    "openai_privacy_filter", "pe_audio_encoder", "pe_audio_video_encoder", "pe_video_encoder",
    "roformer", "sam2_video", "sam3_tracker_video", "sam3_vit_model",
})  # fmt: skip
"""Model types whose transformers code rotates neighbouring lanes."""

INTERLEAVED_TO_HALF = frozenset({
    "axk1", "axk2", "bailing_hybrid", "deepseek_v3", "deepseek_v32", "dots3_note_text",
    "glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "mistral4", "mistral_large4_text", "youtu",
})  # fmt: skip
"""Model types whose code takes neighbouring lanes and gives halves: DeepSeek-V3 and its kin.

Those that have a ``rope_interleave`` do so where it is true."""

INVERSE = frozenset({"nanochat"})
"""Model types whose code rotates by -m theta."""

LAST_LANES = frozenset({"deepseek_v4"})
"""Model types whose code rotates the last lanes of a head, not the first."""

_FIXED_BASE = frozenset({"codegen", "gptj", "roformer"})  # 10000 is written in their code
_BASE_NAMES = "rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta"
_HEAD_DIM_NAMES = "head_dim", "attention_head_dim", "kv_channels", "d_kv"
_WIDTH_NAMES = "hidden_size", "n_embd", "d_model", "embed_dim"
_HEADS_NAMES = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_num_attention_heads",
    "speech_encoder_attention_heads",
)  # fmt: skip
_PART_NAMES = "rotary_dim", "partial_rotary_factor", "rotary_pct", "qk_rope_head_dim"
_LOCAL_BASE_NAMES = "rope_local_base_freq", "local_rope_theta"
# What is read elsewhere here, or does not bear on the rotation of text.
_IGNORED = frozenset({
    "rope_theta", "rope_type", "type", "partial_rotary_factor", "mrope_section",
    "mrope_interleaved", "llama_4_scaling_beta", "max_position_embeddings",
})  # fmt: skip
_LENGTH = "original_max_position_embeddings"


def from_hf_config(
    config: str | PathLike[str] | Mapping[str, Any] | object,
    *,
    layout: Layout | None = None,
    layer_type: str | None = None,
) -> RotarySpec:
    """The rotary embedding that a Hugging Face config describes.

    Parameters
    ----------
    config : path, mapping or config object
        A ``config.json`` file, its contents, or an object with ``to_dict()``.
    layout : {"interleaved", "half"} or None
        None: what the model type's code in transformers does.
    layer_type : str or None
        Such as "sliding_attention", for models whose layers rotate in different ways.

    Raises
    ------
    SpecError
        If the file is not a config, a needed key is missing, the schedule is not supported, or the
        config has one schedule per layer type and ``layer_type`` is none of them.

    Examples
    --------
    >>> from rotary_spec import from_hf_config
    >>> from_hf_config({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32,
    ...                 "rope_theta": 500000.0})
    RotarySpec(head_dim=128, base=500000.0, layout='half')
    """
    values = _of_layer(_read(config), layer_type)
    parameters = values["rope_parameters"]
    model_type = str(values.get("model_type", ""))
    head_dim, rotary_dim = _dims(values, parameters, model_type)
    base = None if model_type in _FIXED_BASE else _base(values, parameters)
    output_layout: Layout | None = None
    if layout is None:
        layout, output_layout = _layouts(values, model_type)
    return RotarySpec(
        head_dim=head_dim,
        base=10_000.0 if base is None else base,
        layout=layout,
        output_layout=output_layout,
        rotary_dim=rotary_dim,
        rotary_start=head_dim - rotary_dim if model_type in LAST_LANES else 0,
        schedule=_schedule(values, parameters),
        inverse=model_type in INVERSE,
    )


def says_rotary(config: str | PathLike[str] | Mapping[str, Any] | object) -> bool:
    """Whether a config has any key that bears on the rotation, beside the size of the heads."""
    values = _read(config)
    parameters = values.get("rope_parameters") or values.get("rope_scaling")
    return bool(parameters) or _first(values, *_BASE_NAMES, *_PART_NAMES) is not None


def _read(config: object) -> Mapping[str, Any]:
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


def _of_layer(values: Mapping[str, Any], layer_type: str | None) -> dict[str, Any]:
    """The config as layers of one type see it, with flat ``rope_parameters``."""
    parameters = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise SpecError(f"rope_parameters must be a mapping, got {parameters!r}")
    if any(isinstance(value, Mapping) for value in parameters.values()):
        parameters = _one_of(parameters, layer_type)
    elif layer_type == "sliding_attention" and _first(values, *_LOCAL_BASE_NAMES) is not None:
        # transformers 4: the scaling is that of the other layers
        parameters = {"rope_theta": _first(values, *_LOCAL_BASE_NAMES)}
    seen = {**values, **_first_layer(values, layer_type), "rope_parameters": dict(parameters)}
    if layer_type == "full_attention" and values.get("global_head_dim") is not None:
        seen["head_dim"] = values["global_head_dim"]
    return seen


def _one_of(parameters: Mapping[str, Any], layer_type: str | None) -> Mapping[str, Any]:
    types = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    if layer_type is None:
        raise SpecError(
            f"rope_parameters holds one schedule per layer type ({', '.join(types)}); "
            f"say which: layer_type={types[0]!r}"
        )
    if layer_type not in types:
        raise SpecError(f"layer_type must be one of {', '.join(types)}, got {layer_type!r}")
    # A layer type that does not rotate is there with None.
    shared = {n: value for n, value in parameters.items() if n not in types and value is not None}
    return {**shared, **parameters[layer_type]}


def _first_layer(values: Mapping[str, Any], layer_type: str | None) -> Mapping[str, Any]:
    """What the first layer of a type overrides, where layers have configs of their own."""
    types, layers = values.get("layer_types") or [], values.get("per_layer_config")
    if layer_type not in types or not isinstance(layers, Mapping):
        return {}
    index = str(types.index(layer_type))
    return next((own for key, own in layers.items() if (str(key).lstrip("0") or "0") == index), {})


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _dims(
    values: Mapping[str, Any], parameters: Mapping[str, Any], model_type: str
) -> tuple[int, int]:
    """head_dim and rotary_dim."""
    part = values.get("qk_rope_head_dim")
    if part is not None and model_type not in LAST_LANES:
        # Multi-head latent attention: a part of the head, cut off before, is rotated whole.
        part = integer("qk_rope_head_dim", part)
        return part, part
    head_dim = _head_dim(values)
    return head_dim, _rotary_dim(values, parameters, head_dim)


def _head_dim(values: Mapping[str, Any]) -> int:
    given = _first(values, *_HEAD_DIM_NAMES)
    if given is not None:
        return integer("head_dim", given)
    width, heads = _first(values, *_WIDTH_NAMES), _first(values, *_HEADS_NAMES)
    if width is None or heads is None:
        raise SpecError("config needs head_dim, or hidden_size and num_attention_heads")
    width, heads = integer("hidden_size", width), integer("num_attention_heads", heads)
    if heads <= 0 or width % heads:
        raise SpecError(
            f"hidden_size {width} is not a multiple of num_attention_heads {heads}: give head_dim"
        )
    return width // heads


def _base(values: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
    base = _first(parameters, "rope_theta")
    return _first(values, *_BASE_NAMES) if base is None else base


def _layouts(values: Mapping[str, Any], model_type: str) -> tuple[Layout, Layout | None]:
    """Layout of the input and, where it differs, of the output."""
    if model_type in INTERLEAVED_TO_HALF and values.get("rope_interleave", True):
        return "interleaved", "half"
    return ("interleaved" if model_type in INTERLEAVED else "half"), None


def _rotary_dim(values: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> int:
    if values.get("rotary_dim") is not None:
        return integer("rotary_dim", values["rotary_dim"])
    if _rope_type(parameters) == "proportional":
        return head_dim  # its factor thins out the frequencies, over the whole width
    factor = _first(parameters, "partial_rotary_factor")
    if factor is None:
        factor = _first(values, "partial_rotary_factor", "rotary_pct")
    return head_dim if factor is None else int(head_dim * positive("partial_rotary_factor", factor))


def _rope_type(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _schedule(values: Mapping[str, Any], parameters: Mapping[str, Any]) -> Schedule:
    rope_type = _rope_type(parameters)
    if rope_type == "default":
        return Default()
    if rope_type == "axial":
        raise SpecError("rope_type 'axial' turns by two positions, row and column, not by one")
    if rope_type == "dynamic" and parameters.get("alpha"):  # HunYuan's name for a fixed base
        return Ntk(factor=parameters["alpha"])
    arguments = {name: value for name, value in parameters.items() if name not in _IGNORED}
    longest = values.get("max_position_embeddings")
    if rope_type in ("llama3", "yarn", "longrope"):
        # A top-level original length wins over the nested one, as in transformers (Phi-3).
        length = _first(values, _LENGTH) or _first(arguments, _LENGTH) or longest
        arguments |= {} if length is None else {_LENGTH: length}
        if rope_type != "llama3" and arguments.get("factor") is None and length and longest:
            arguments["factor"] = max(longest / length, 1.0)
    if rope_type == "dynamic":
        arguments["max_position_embeddings"] = longest
    if rope_type == "proportional":
        arguments["partial_rotary_factor"] = _first(parameters, "partial_rotary_factor") or 1.0
    return schedule_from_dict({"rope_type": rope_type, **arguments})
