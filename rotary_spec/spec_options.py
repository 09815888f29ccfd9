"""From what is typed on the command line to a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.schedules import Schedule, schedule_from_dict
from rotary_spec.sections import Sections
from rotary_spec.spec import RotarySpec


def spec_from_options(
    fields: Mapping[str, Any], config: str | None = None, layer_type: str | None = None
) -> RotarySpec:
    """A spec from fields that were given, in place of those of a Hugging Face config.

    Parameters
    ----------
    fields : mapping
        Fields of `RotarySpec`; the schedule as a `Schedule`, as JSON's mapping or as text, the
        sections as JSON's mapping or with sizes as text.
    config : str or None
        Path of a ``config.json``.
    layer_type : str or None
        Which of the config's specs is meant, where it has one per layer type.

    Raises
    ------
    SpecError
        If they describe no spec, or ``head_dim`` is in neither.
    """
    values = parsed(fields)
    if config is not None:
        from rotary_spec.huggingface import one_hf_spec

        values = {**one_hf_spec(config, layer_type).to_dict(), **values}
    elif layer_type is not None:
        raise SpecError(f"layer_type {layer_type!r}: there is no --config to have it")
    if "head_dim" not in values:
        raise SpecError("head_dim is missing. Hint: give --head-dim, or --config config.json")
    return RotarySpec.from_dict(values)


def parsed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec, with values in place of text."""
    values = dict(fields)
    if isinstance(values.get("schedule"), str):
        values["schedule"] = parse_schedule(values["schedule"])
    sections = values.get("sections")
    if isinstance(sections, Mapping) and not isinstance(sections.get("sizes"), list):
        values["sections"] = parse_sections(sections)
    return values


def parse_schedule(text: str) -> Schedule:
    """A schedule from ``rope_type:name=value,name=value``.

    >>> from rotary_spec.spec_options import parse_schedule
    >>> parse_schedule("linear:factor=4")
    Linear(factor=4.0)
    """
    rope_type, _, rest = text.partition(":")
    parameters: dict[str, Any] = {"rope_type": rope_type}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        try:
            parameters[key] = float(value)
        except ValueError:
            raise SpecError(
                f"schedule {text!r}: {item!r} must be name=number"
                if equals
                else f"schedule {text!r}: must look like linear:factor=4"
            ) from None
    return schedule_from_dict(parameters)


def parse_sections(fields: Mapping[str, Any]) -> Sections:
    """Sections from the fields that were given, the sizes as ``16,24,24``.

    >>> from rotary_spec.spec_options import parse_sections
    >>> parse_sections({"sizes": "16,24,24", "frequencies": "restart"})
    Sections((16, 24, 24), frequencies='restart')
    """
    if "sizes" not in fields:
        raise SpecError(f"section-{next(iter(fields))} needs --sections, the pairs per axis")
    try:
        sizes = tuple(int(size) for size in fields["sizes"].split(","))
    except ValueError:
        raise SpecError(
            f"sections {fields['sizes']!r}: must be pairs per axis, such as 16,24,24"
        ) from None
    return Sections(**{**fields, "sizes": sizes})
