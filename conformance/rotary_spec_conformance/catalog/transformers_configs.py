"""Configs of transformers: which class, read from what, and what they say about heads."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rotary_spec import TargetError


@contextmanager
def library() -> Iterator[None]:
    """Import and build code of transformers: offline, and without its warnings."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        before = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logging.set_verbosity(before)


@cache
def config_names() -> dict[str, str]:
    """Config class of every model type."""
    with library():
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        return dict(CONFIG_MAPPING_NAMES)


def folder_of(model_type: str) -> str:
    """The folder below ``models`` that holds a model type's code."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return str(model_type_to_module_name(model_type))


def type_of(config: str | None, folder: str) -> str:
    """Model type of a config class; its folder's, where the class has none of its own."""
    return next((name for name, cls in config_names().items() if cls == config), folder)


def read_config(cls: Any, model_type: str, given: Any) -> Any:
    """A config object: the default, or made from a path, a mapping or an object.

    Raises
    ------
    TargetError
        If it cannot be read, or is of another model type.
    """
    if given is None:
        return cls()
    if isinstance(given, str | os.PathLike):
        try:
            given = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TargetError(f"config {str(given)!r} cannot be read: {error}") from error
    if isinstance(given, Mapping):
        return cls.from_dict(dict(_meant(given, model_type)))
    return given


def _meant(values: Mapping[str, Any], model_type: str) -> Mapping[str, Any]:
    """The part of a config that is of the model type: itself, or one that it holds."""
    if values.get("model_type", model_type) == model_type:
        return values
    parts = [part for part in values.values() if isinstance(part, Mapping)]
    for part in parts:
        if part.get("model_type") == model_type:
            return part
    types = [values["model_type"], *(part["model_type"] for part in parts if "model_type" in part)]
    raise TargetError(f"the config is of model type {', '.join(types)}, not {model_type}")


def parts_of(config: Any) -> list[Any]:
    """The configs that a config holds, in the order in which its class names them."""
    names = getattr(config, "sub_configs", {})
    found = (getattr(config, name, None) for name in names)
    return [part for part in found if hasattr(part, "to_dict")]


def head_dims(config: Any, layer_type: str | None) -> list[int]:
    """Features per head that a config may mean, the likeliest first."""
    one = _layer(config, layer_type)
    found = [_number(one, "head_dim")]
    heads = _number(one, "num_attention_heads") or _number(one, "num_heads")
    for name in ("embed_dim", "hidden_size", "d_model"):
        width = _number(one, name)
        found.append(width // heads if width and heads else None)
    return [dim for dim in found if dim and dim % 2 == 0]


def _layer(config: Any, layer_type: str | None) -> Any:
    """The config of the first layer of a type, where layers have configs of their own."""
    if layer_type is None:
        return config
    types = getattr(config, "layer_types", None) or []
    layers = getattr(config, "per_layer_config", None)
    return layers[types.index(layer_type)] if layers and layer_type in types else config


def _number(config: Any, name: str) -> int | None:
    try:
        value = getattr(config, name, None)
    except Exception:  # a config may refuse what differs between its layers
        return None
    return value if isinstance(value, int) else None
