"""Hugging Face ``config.json`` to `RotarySpec`.

Reads both spellings: ``rope_parameters`` (transformers 5) and ``rope_scaling`` with a top-level
``rope_theta`` (transformers 4). A config does not say which lanes form a pair; `INTERLEAVED` lists
the model types whose code pairs neighbours, every other one pairs halves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.schedules import Default, Schedule, positive, schedule_from_dict
from rotary_spec.spec import Layout, RotarySpec, integer

INTERLEAVED = frozenset(
    {
        "codegen",
        "cohere",
        "cohere2",
        "ernie4_5",
        "glm",
        "glm4",
        "gptj",
        "helium",
        "llama4",
        "llama4_text",
        "moonshine",
        "roformer",
    }
)
"""Model types whose transformers code rotates neighbouring lanes."""

_FIXED_BASE = frozenset({"codegen", "gptj", "roformer"})  # 10000 is written in their code
_IGNORED = ("rope_theta", "rope_type", "type", "partial_rotary_factor")


def from_hf_config(
    config: str | PathLike[str] | Mapping[str, Any] | object, *, layout: Layout | None = None
) -> RotarySpec:
    """The rotary embedding that a Hugging Face config describes.

    Parameters
    ----------
    config : path, mapping or config object
        A ``config.json`` file, its contents, or an object with ``to_dict()``.
    layout : {"interleaved", "half"} or None
        None: what the model type's code in transformers does.

    Raises
    ------
    SpecError
        If the file is not a config, a needed key is missing, or the schedule is not supported.

    Examples
    --------
    >>> from rotary_spec import from_hf_config
    >>> from_hf_config({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32,
    ...                 "rope_theta": 500000.0})
    RotarySpec(head_dim=128, base=500000.0, layout='half')
    """
    values = _read(config)
    model_type = str(values.get("model_type", ""))
    parameters = _rope_parameters(values)
    head_dim = _head_dim(values)
    base = None if model_type in _FIXED_BASE else _base(values, parameters)
    if layout is None:
        layout = "interleaved" if model_type in INTERLEAVED else "half"
    return RotarySpec(
        head_dim=head_dim,
        base=10_000.0 if base is None else base,
        layout=layout,
        rotary_dim=_rotary_dim(values, parameters, head_dim),
        schedule=_schedule(values, parameters),
    )


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


def _rope_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    parameters = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise SpecError(f"rope_parameters must be a mapping, got {parameters!r}")
    if parameters and all(isinstance(value, Mapping) for value in parameters.values()):
        raise SpecError(
            "rope_parameters holds one schedule per layer type "
            f"({', '.join(map(str, parameters))}); pass one of them as a flat config"
        )
    return dict(parameters)


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _head_dim(values: Mapping[str, Any]) -> int:
    given = _first(values, "head_dim")
    if given is not None:
        return integer("head_dim", given)
    width = _first(values, "hidden_size", "n_embd", "d_model")
    heads = _first(values, "num_attention_heads", "n_head", "num_heads")
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
    names = "rope_theta", "rotary_emb_base", "global_rope_theta"
    return _first(values, *names) if base is None else base


def _rotary_dim(values: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> int:
    if values.get("rotary_dim") is not None:
        return integer("rotary_dim", values["rotary_dim"])
    factor = _first(parameters, "partial_rotary_factor")
    if factor is None:
        factor = _first(values, "partial_rotary_factor", "rotary_pct")
    return head_dim if factor is None else int(head_dim * positive("partial_rotary_factor", factor))


def _schedule(values: Mapping[str, Any], parameters: Mapping[str, Any]) -> Schedule:
    rope_type = parameters.get("rope_type") or parameters.get("type") or "default"
    if rope_type == "default":
        return Default()
    arguments = {name: value for name, value in parameters.items() if name not in _IGNORED}
    # A top-level original length wins over the nested one, as in transformers (Phi-3 writes it so).
    length = values.get("original_max_position_embeddings")
    if length is not None and "original_max_position_embeddings" in arguments:
        arguments["original_max_position_embeddings"] = length
    return schedule_from_dict({"rope_type": rope_type, **arguments})
