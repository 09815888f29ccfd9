"""From a config to `Sections`: M-RoPE and the axial embeddings of vision models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.families import AXIAL, MROPE, Axes
from rotary_spec.huggingface.reading import Values, first, model_type_of
from rotary_spec.sections import Order, Sections
from rotary_spec.spec import integer


def sections_of(values: Values, rotary_dim: int) -> Sections | None:
    """How the pairs are shared out among the axes; None where positions are single integers.

    Raises
    ------
    SpecError
        If ``mrope_section`` does not fit the rotated lanes or the order of the model's code.
    """
    model_type = model_type_of(values)
    if model_type in AXIAL:
        return _axial(AXIAL[model_type], rotary_dim, model_type)
    parameters = values["rope_parameters"]
    axes = MROPE.get(model_type)
    given = parameters.get("mrope_section")
    if given is None and axes is None:
        return None
    if given is None and axes is not None:
        given = _default_sizes(axes, rotary_dim // 2)
    sizes = _sizes(given)
    if sum(sizes) != rotary_dim // 2:
        raise SpecError(
            f"mrope_section must sum to rotary_dim / 2 = {rotary_dim // 2}, one for each pair; got "
            f"{' + '.join(map(str, sizes))} = {sum(sizes)}"
            + ("" if "mrope_section" in parameters else f", {model_type}'s where none is given")
        )
    order = _order(parameters, axes, model_type)
    if order == "spatial_first":  # Ernie's section counts row, column, time
        sizes = (*sizes[-1:], *sizes[:-1])
    try:
        return Sections(sizes, order)
    except SpecError as error:
        raise SpecError(f"mrope_section {list(sizes)}: {error}") from error


def _default_sizes(axes: Axes, pairs: int) -> tuple[int, ...]:
    """What a model type's code takes where a config has no ``mrope_section``."""
    if not axes.sizes:
        return (pairs // axes.number,) * axes.number
    # Interleaved, the other axes overwrite the first, which has what they leave.
    rest = pairs - sum(axes.sizes[1:])
    return (rest, *axes.sizes[1:]) if axes.order == "interleaved" and rest > 0 else axes.sizes


def _axial(axes: Axes, rotary_dim: int, model_type: str) -> Sections:
    if rotary_dim // 2 % axes.number:
        raise SpecError(
            f"model_type {model_type!r} gives every axis as many pairs: head_dim must be a "
            f"multiple of {2 * axes.number}, got {rotary_dim}"
        )
    sizes = (rotary_dim // 2 // axes.number,) * axes.number
    return Sections(sizes, axes.order, axes.frequencies, axes.pairing)


def _sizes(given: Any) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise SpecError(f"mrope_section must be a list of pairs per axis, got {given!r}")
    sizes = tuple(integer("mrope_section", size) for size in given)
    if not sizes or min(sizes) < 1:
        raise SpecError(f"mrope_section must give every axis at least one pair, got {given!r}")
    return sizes


def _order(parameters: Values, axes: Axes | None, model_type: str) -> Order:
    """The order of the model's code, which the config must not contradict."""
    said = first(parameters, "mrope_interleaved", "interleaved")
    if axes is None:
        return "interleaved" if said else "chunked"
    if said is not None and bool(said) != (axes.order == "interleaved"):
        raise SpecError(
            f"mrope_interleaved {said!r} contradicts model_type {model_type!r}, whose code takes "
            f"its pairs in {axes.order} order"
        )
    return axes.order
