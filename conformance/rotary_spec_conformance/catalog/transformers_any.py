"""Every rotary embedding of Hugging Face transformers, by the pattern of its code.

A model type has a rotary embedding where its modeling file defines a class ``*Rotary*Embedding``
or ``*Rope*Embedding``, or a function or method ``apply_*rotary*``, ``apply_*rope*`` or
``rotate_queries_or_keys``. `transformers_source` finds them, `transformers_trial` finds out how
they are called, `transformers_build` builds them from a config, without the model around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance.catalog import transformers_by_hand as by_hand
from rotary_spec_conformance.catalog.transformers_build import (
    Built,
    Unbuilt,
    build_use,
    reason_of,
)
from rotary_spec_conformance.catalog.transformers_claims import claimed_spec, on_its_axes
from rotary_spec_conformance.catalog.transformers_configs import (
    config_names,
    folder_of,
    library,
    parts_of,
    read_config,
    type_of,
)
from rotary_spec_conformance.catalog.transformers_source import (
    Modeling,
    Use,
    every_modeling,
    modeling,
)
from rotary_spec_conformance.target import Target

PREFIX = "transformers:"

BY_HAND: dict[str, Callable[..., tuple[Target, Any]]] = {
    "gptj": by_hand.gptj,
    "roformer": by_hand.roformer,
}
"""Model types whose attention rotates in its own body, so that a class of it has to be run."""


def model_types() -> list[str]:
    """Every model type of the installed transformers whose own code has a rotary embedding.

    A type that only wraps others, such as "gemma3" around "gemma3_text", is not listed; `targets`
    takes it nevertheless.
    """
    found = {type_of(use.config, file.folder) for file in every_modeling() for use in file.uses}
    return sorted(found)


def targets(model_type: str, config: Any = None) -> list[tuple[Target, Any]]:
    """The rotary embeddings of a model type, each with the config it was built from.

    Parameters
    ----------
    model_type : str
        As in ``config.json``; for a type that wraps others, those of its parts.
    config : path, mapping, config object or None
        None: the type's default config.

    Raises
    ------
    TargetError
        If the type is unknown, has no rotary embedding, or none of them can be built; it says why.
    """
    made = build(model_type, config)
    built = [(one.target, one.config) for one in made if isinstance(one, Built)]
    if built:
        return built
    reasons = "; ".join(f"{one.code}: {one.reason}" for one in made if isinstance(one, Unbuilt))
    raise TargetError(f"{PREFIX}{model_type}: {reasons}")


def load(name: str, config: Any = None) -> tuple[Target, rs.RotarySpec]:
    """One target by its full name, and what its config claims.

    Parameters
    ----------
    name : str
        "transformers:<model type>", and the part where the type has several: the layer type, the
        apply function or the module class.
    config : path, mapping, config object or None

    Raises
    ------
    TargetError
        If there is no such target, it cannot be built, or no spec can say what its config claims.
    """
    made = build(name.removeprefix(PREFIX).partition(":")[0], config)
    chosen = [one for one in made if one.name == name] or (made if len(made) == 1 else [])
    if not chosen:
        raise TargetError(f"{name} is one of several: {', '.join(one.name for one in made)}")
    one = chosen[0]
    if isinstance(one, Unbuilt):
        raise TargetError(f"{name}: {one.code}: {one.reason}")
    one = on_its_axes(one)
    return one.target, claimed_spec(one)


def names_of(name: str) -> list[str]:
    """The targets that "transformers:<model type>" stands for.

    Raises
    ------
    TargetError
        As `build`.
    """
    if name.count(":") > 1:
        return [name]
    return [one.name for one in build(name.removeprefix(PREFIX))]


def build(model_type: str, config: Any = None) -> list[Built | Unbuilt]:
    """`targets` with what could not be built, and all that is known about each.

    Raises
    ------
    TargetError
        If the type is unknown, has no rotary embedding, or the config cannot be read.
    """
    with library():
        if model_type not in config_names():
            raise TargetError(f"{model_type!r} is not a model type of transformers")
        if model_type in BY_HAND:
            target, used = BY_HAND[model_type](config)
            return [Built(target.name, target.about, target, used)]
        file = modeling(folder_of(model_type))
        uses = _uses_of(file, model_type) if file is not None else []
        if file is None or not uses:
            return _wrapped(model_type, config)
        made = [one for use in uses for one in build_use(model_type, file, use, config)]
    return _named(model_type, made)


def _uses_of(file: Modeling, model_type: str) -> list[Use]:
    cls = config_names()[model_type]
    return [u for u in file.uses if u.config == cls or type_of(u.config, file.folder) == model_type]


def _wrapped(model_type: str, given: Any) -> list[Built | Unbuilt]:
    """The rotary embeddings of the parts of a type that has no code for them itself."""
    from transformers import AutoConfig

    try:
        config = read_config(type(AutoConfig.for_model(model_type)), model_type, given)
    except Exception as error:  # configs of others fail in many ways
        raise TargetError(f"{PREFIX}{model_type}: {reason_of(error, given)}") from error
    types = {str(part.model_type): part for part in parts_of(config)}
    types.pop(model_type, None)
    made: list[Built | Unbuilt] = []
    for name, part in types.items():
        try:
            made += build(name, part)
        except TargetError:  # a part without a rotary embedding
            continue
    if not made:
        parts = f", nor has any of its parts ({', '.join(types)})" if types else ""
        raise TargetError(f"{PREFIX}{model_type} has no rotary embedding{parts}")
    return made


def _named(model_type: str, made: list[Built | Unbuilt]) -> list[Built | Unbuilt]:
    """Give every sibling what tells it from the others: function, module class or layer type."""
    if len(made) == 1:
        return made
    modules, functions = ({half(one.code) for one in made} for half in (_module, _function))
    named: list[Built | Unbuilt] = []
    for one in made:
        parts = [_module(one.code)] if len(modules) > 1 else []
        parts += [_function(one.code)] if len(functions) > 1 else []
        if isinstance(one, Built) and one.layer_type is not None:
            parts.append(one.layer_type)
        name = ":".join([f"{PREFIX}{model_type}", *parts])
        if isinstance(one, Built):
            one = replace(one, target=replace(one.target, name=name))
        named.append(replace(one, name=name))
    return named


def _module(code: str) -> str:
    return code.partition(" with ")[0]


def _function(code: str) -> str:
    return code.rpartition(" with ")[2]
