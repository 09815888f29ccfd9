"""From ``rope_parameters`` to a schedule, with every key accounted for."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.families import (
    AXIAL,
    BASES,
    FIXED_BASE,
    HUNYUAN,
    LONGROPE_NAMES,
    MROPE,
    TWO_MAGNITUDES,
)
from rotary_spec.huggingface.reading import (
    BASE_NAMES,
    ORIGINAL_LENGTH,
    Values,
    first,
    model_type_of,
    rope_type_of,
)
from rotary_spec.schedules import Default, Schedule, positive, schedule_from_dict

_READ = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
_OF_AXES = {"mrope_section", "mrope_interleaved", "interleaved"}
_INERT = {
    "llama_4_scaling_beta",  # scales queries with their position, beside the rotation
    "max_position_embeddings",  # Ministral's copy of the one at the top, which is what is read
}
_BESIDE_ALPHA = {"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}
"""YaRN's keys, which HunYuan's configs have beside ``alpha`` and its code does not read."""


def base_of(values: Values) -> Any:
    """The base, unchecked."""
    model_type = model_type_of(values)
    if model_type in FIXED_BASE:
        return 10_000.0
    base = first(values["rope_parameters"], "rope_theta")
    if base is None:
        base = first(values, *BASE_NAMES)
    return BASES.get(model_type, 10_000.0) if base is None else base


def schedule_of(values: Values, *, ignore_unknown: bool) -> Schedule:
    """The schedule that ``rope_parameters`` describe.

    Raises
    ------
    SpecError
        If a key is unknown, missing or breaks a rule of the schedule.
    """
    model_type = model_type_of(values)
    given = {n: value for n, value in values["rope_parameters"].items() if value is not None}
    rope_type = _known_type(values)
    known = (
        _READ | _INERT | (_OF_AXES if model_type in MROPE or "mrope_section" in given else set())
    )
    if rope_type == "dynamic" and "alpha" in given and model_type in HUNYUAN | {""}:
        _refuse_unknown(given, known | _BESIDE_ALPHA | {"alpha"}, rope_type, ignore_unknown)
        if (alpha := positive("alpha", given["alpha"])) < 1:
            raise SpecError(f"alpha must be at least 1, got {alpha!r}")
        return schedule_from_dict({"rope_type": "ntk", "factor": given["alpha"]})
    if rope_type == "longrope" and model_type in TWO_MAGNITUDES | {""}:
        given = _one_magnitude(given)
    takes = _fields_of(rope_type)
    read_elsewhere = {"max_position_embeddings"} if rope_type == "dynamic" else set()
    _refuse_unknown(given, known | set(takes), rope_type, ignore_unknown)
    arguments = {n: given[n] for n in takes if n in given and n not in read_elsewhere}
    arguments |= _lengths(values, rope_type, arguments)
    if rope_type == "proportional":
        arguments.setdefault("partial_rotary_factor", 1.0)
    missing = [n for n, f in takes.items() if f.default is MISSING and n not in arguments]
    if missing:
        raise SpecError(f"rope_type {rope_type!r} needs {', '.join(missing)}; got {_names(given)}")
    return schedule_from_dict({"rope_type": rope_type, **arguments})


def _known_type(values: Values) -> str:
    """The ``rope_type`` of a schedule, whatever the model type calls it."""
    model_type, rope_type = model_type_of(values), rope_type_of(values)
    if rope_type in LONGROPE_NAMES.get(model_type, ()):
        return "longrope"
    if rope_type == "axial" and model_type not in AXIAL:
        raise SpecError(
            f"rope_type 'axial' turns by several positions, in a way that only the model's code "
            f"says; that of model_type {model_type or None!r} is not known"
        )
    if model_type in AXIAL and rope_type not in ("default", "axial"):
        raise SpecError(
            f"rope_type {rope_type!r}: the code of model_type {model_type!r} has no schedule but "
            "the plain one, 'default' or 'axial'"
        )
    sections = values["rope_parameters"].get("mrope_section")
    if rope_type == "mrope" and model_type not in MROPE and sections is None:
        raise SpecError("rope_type 'mrope' needs mrope_section; the config has none")
    # With several axes the frequencies are the plain ones; the rest is a matter of the sections.
    return "default" if rope_type in ("axial", "mrope") else rope_type


def _lengths(values: Values, rope_type: str, arguments: Values) -> dict[str, Any]:
    """The lengths and the factor that follow from keys outside ``rope_parameters``."""
    longest = values.get("max_position_embeddings")
    if rope_type == "dynamic":
        return {} if longest is None else {"max_position_embeddings": longest}
    if rope_type not in ("llama3", "yarn", "longrope"):
        return {}
    # A top-level original length wins over the one beside the factors, as in transformers (Phi-3).
    length = first(values, ORIGINAL_LENGTH)
    if length is None:
        length = arguments.get(ORIGINAL_LENGTH, longest)
    if length is None:
        raise SpecError(
            f"rope_type {rope_type!r} needs {ORIGINAL_LENGTH}, or max_position_embeddings in its "
            "place; the config has neither"
        )
    found = {ORIGINAL_LENGTH: length}
    if rope_type != "llama3" and "factor" not in arguments and longest is not None:
        positive(ORIGINAL_LENGTH, length)
        if positive("max_position_embeddings", longest) < length:
            raise SpecError(
                f"max_position_embeddings must not be below {ORIGINAL_LENGTH}, because factor is "
                f"their ratio where it is not given; got {longest} < {length}"
            )
        found["factor"] = longest / length
    return found


def _one_magnitude(given: dict[str, Any]) -> dict[str, Any]:
    """Phi-3.5-MoE's two magnitudes as ``attention_factor``, which they are where they agree."""
    short, long = given.get("short_mscale"), given.get("long_mscale")
    if short != long:
        raise SpecError(
            f"short_mscale and long_mscale must be equal, because a spec has one magnitude for "
            f"both; got {short!r} and {long!r}"
        )
    given = {n: value for n, value in given.items() if n not in ("short_mscale", "long_mscale")}
    return given if short is None else {**given, "attention_factor": short}


def _fields_of(rope_type: str) -> dict[str, Field[Any]]:
    """The parameters of a schedule that a config can name."""
    if rope_type == "default":
        return {}
    import_module("rotary_spec.yarn")  # registers its schedules, and those of `scaling`
    cls = Schedule.registry.get(rope_type, Default)
    if rope_type in ("ntk", "explicit") or cls is Default:
        known = sorted(set(Schedule.registry) - {"ntk", "explicit"})
        raise SpecError(
            f"rope_type {rope_type!r} is not one of Hugging Face's; known: {', '.join(known)}"
        )
    return {field.name: field for field in fields(cls)}


def _refuse_unknown(given: Values, known: set[str], rope_type: str, ignore_unknown: bool) -> None:
    unknown = sorted(set(given) - known)
    if unknown and not ignore_unknown:
        raise SpecError(
            f"rope_parameters holds {', '.join(map(repr, unknown))}, unknown for rope_type "
            f"{rope_type!r}; known: {', '.join(sorted(known))}. "
            "Hint: ignore_unknown=True leaves out what is unknown"
        )


def _names(given: Values) -> str:
    return ", ".join(name for name in given if name not in _READ) or "none"
