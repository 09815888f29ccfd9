"""`from_hf_config`: what a Hugging Face config says, as one `RotarySpec` or one per layer type."""

from __future__ import annotations

from typing import overload

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.axes import sections_of
from rotary_spec.huggingface.families import INVERSE, LAST_LANES
from rotary_spec.huggingface.reading import (
    BASE_NAMES,
    PART_NAMES,
    Config,
    Values,
    dims_of,
    first,
    layer_types_of,
    layouts_of,
    model_type_of,
    of_layer,
    parameters_of,
    read_config,
    refuse_unsayable,
)
from rotary_spec.huggingface.schedule import base_of, schedule_of
from rotary_spec.spec import Layout, RotarySpec


@overload
def from_hf_config(
    config: Config,
    *,
    layout: Layout | None = None,
    layer_type: str,
    ignore_unknown: bool = False,
) -> RotarySpec: ...
@overload
def from_hf_config(
    config: Config,
    *,
    layout: Layout | None = None,
    layer_type: None = None,
    ignore_unknown: bool = False,
) -> RotarySpec | dict[str, RotarySpec]: ...
def from_hf_config(
    config: Config,
    *,
    layout: Layout | None = None,
    layer_type: str | None = None,
    ignore_unknown: bool = False,
) -> RotarySpec | dict[str, RotarySpec]:
    """The rotary embedding that a Hugging Face config describes.

    What is left out of a config is taken as transformers takes it, as far as the rotation goes:
    base, rotated share and sections, but no sizes. A config object has those too.

    Parameters
    ----------
    config : path, mapping or config object
        A ``config.json`` file, its contents, or an object with ``to_dict()``. Of a model of
        several parts, the part that is meant, such as its ``text_config``.
    layout : {"interleaved", "half"} or None
        None: what the model type's code in transformers does.
    layer_type : str or None
        Such as "sliding_attention", for models whose layers rotate in different ways.
    ignore_unknown : bool
        Leave out keys beside the schedule's own that are not known, instead of refusing them.

    Returns
    -------
    RotarySpec or dict of str to RotarySpec
        By layer type where the config has a schedule for each and ``layer_type`` is None.

    Raises
    ------
    SpecError
        If the file is not a config; a needed key is missing; a key is unknown, breaks a rule or
        contradicts another; or no spec can say what the model's code does. It names the key.

    Notes
    -----
    Some models rotate in some layers only (Llama 4, SmolLM3, Command R7B); which ones is no part
    of a spec. Positions of specs with `Sections` are (time, row, column) in text models and (row,
    column) in vision models, but for those that `families` lists.

    Examples
    --------
    >>> from rotary_spec import from_hf_config
    >>> from_hf_config({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32,
    ...                 "rope_theta": 500000.0})
    RotarySpec(head_dim=128, base=500000.0, layout='half')
    >>> layers = from_hf_config({"model_type": "gemma3_text", "head_dim": 256})
    >>> layers["sliding_attention"]
    RotarySpec(head_dim=256, layout='half')
    """
    values = read_config(config)
    types = layer_types_of(values)
    if layer_type is None and types:
        return {
            name: _spec(of_layer(values, name), layout, ignore_unknown=ignore_unknown)
            for name in types
        }
    return _spec(of_layer(values, layer_type), layout, ignore_unknown=ignore_unknown)


def one_hf_spec(config: Config, layer_type: str | None = None) -> RotarySpec:
    """`from_hf_config`, where one spec is needed.

    Raises
    ------
    SpecError
        Also if the config has one per layer type and ``layer_type`` is None.
    """
    types = layer_types_of(values := read_config(config))
    if types and layer_type is None:
        raise SpecError(
            f"the config rotates in one way per layer type ({', '.join(types)}); "
            f"say which: layer_type={types[0]!r}, or --layer-type {types[0]}"
        )
    return _spec(of_layer(values, layer_type), None, ignore_unknown=False)


def says_rotary(config: Config) -> bool:
    """Whether a config has any key that bears on the rotation, beside the size of the heads."""
    values = read_config(config)
    return bool(parameters_of(values)) or first(values, *BASE_NAMES, *PART_NAMES) is not None


def _spec(values: Values, layout: Layout | None, *, ignore_unknown: bool) -> RotarySpec:
    """The spec of a config with flat ``rope_parameters``."""
    refuse_unsayable(values)
    model_type = model_type_of(values)
    head_dim, rotary_dim = dims_of(values)
    output_layout: Layout | None = None
    if layout is None:
        layout, output_layout = layouts_of(values)
    return RotarySpec(
        head_dim=head_dim,
        base=base_of(values),
        layout=layout,
        output_layout=output_layout,
        rotary_dim=rotary_dim,
        rotary_start=head_dim - rotary_dim if model_type in LAST_LANES else 0,
        schedule=schedule_of(values, ignore_unknown=ignore_unknown),
        inverse=model_type in INVERSE,
        sections=sections_of(values, rotary_dim),
    )
