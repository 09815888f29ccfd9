"""What a config claims about the rotation that is built from it, and whether the code does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec import SpecError, TargetError
from rotary_spec.huggingface import one_hf_spec, says_rotary
from rotary_spec_conformance.axis_orders import listed
from rotary_spec_conformance.catalog.transformers_build import Built
from rotary_spec_conformance.identification.identify import identify
from rotary_spec_conformance.identification.result import Identification
from rotary_spec_conformance.identification.schedule_fit import Measured

SAYS_NOTHING = "config says nothing"


def claimed_spec(one: Built) -> rs.RotarySpec:
    """The spec that a target's config claims, in the arrangement of lanes that its code has.

    A config gives numbers: widths, base, schedule. Pairs and direction are the code's, and are
    measured.

    Raises
    ------
    TargetError
        If the config contradicts itself or the code, or no spec can say what it claims.
    """
    found = identify(one.target, verify=False)
    try:
        claims = _claims(one, found)
    except SpecError as error:
        raise TargetError(f"{one.name}: its config: {error}") from error
    if found.layout == "permuted":
        raise TargetError(
            f"{one.name}: its pairs are neither interleaved nor halves. "
            "Hint: rotary-spec identify says what it does"
        )
    spec = next((claim for claim in claims if _matches(claim, found)), claims[0])
    if spec.head_dim != one.target.head_dim:
        raise TargetError(
            f"{one.name}: its config says head_dim {spec.head_dim}, its code takes "
            f"{one.target.head_dim}"
        )
    return spec


def on_its_axes(one: Built) -> Built:
    """``one`` with a position per axis, where its config has sections and its code takes them."""
    if not says_rotary(one.config):
        return one
    try:
        sections = one_hf_spec(one.config, one.layer_type).sections
    except SpecError:  # which `claimed_spec` reports
        return one
    return one if sections is None else one.on_axes(sections.axes) or one


def verdict(one: Built, found: Identification) -> str:
    """Whether the code does what its config claims: "yes", "no: why" or `SAYS_NOTHING`."""
    if not found.is_rotary or found.closest is None:
        return "no: it is not rotary"
    if not says_rotary(one.config):
        return SAYS_NOTHING
    try:
        claims = _claims(one, found)
    except SpecError as error:
        return f"no: {error}"
    if any(_matches(claim, found) for claim in claims):
        return "yes"
    return f"no: {_difference(claims[0], found)}"


def _claims(one: Built, found: Identification) -> list[rs.RotarySpec]:
    """What the config may mean, the likeliest first; measured where it says nothing."""
    if not says_rotary(one.config) and found.closest is not None:
        return [found.closest]
    if _axial(one.config) and one.target.axes is None:
        return list(_axial_claims(one.config, found))
    spec = one_hf_spec(one.config, one.layer_type)
    if one.target.axes is None:  # one integer: every axis is at the same position
        spec = replace(spec, sections=None)
    closest = found.closest
    if closest is None:
        return [spec]
    start = closest.rotary_start if closest.rotary_dim == spec.rotary_dim else spec.rotary_start
    return [
        replace(
            spec,
            layout=closest.layout,
            output_layout=closest.output_layout,
            inverse=closest.inverse,
            rotary_start=start if start + spec.rotary_dim <= spec.head_dim else 0,
        )
    ]


def _axial(config: Any) -> bool:
    parameters = getattr(config, "rope_parameters", None) or {}
    return bool(parameters.get("rope_type") == "axial")


def _axial_claims(config: Any, found: Identification) -> Iterator[rs.RotarySpec]:
    """Rotation by several positions, seen where they are equal, as all of ours are.

    The spectrum is repeated for each axis, or dealt out to two.
    """
    if found.closest is None:
        raise SpecError("rope_type 'axial' turns by two positions, row and column, not by one")
    base = float(config.rope_parameters["rope_theta"])
    pairs = len(found.frequencies)
    whole = rs.frequencies(rs.RotarySpec(2 * pairs, base=base))
    for axes in (2, 3):
        if pairs % axes == 0:
            one_axis = rs.frequencies(rs.RotarySpec(2 * pairs // axes, base=base))
            yield _explicit(found, np.tile(one_axis, axes))
            yield _explicit(found, np.repeat(one_axis, axes))
    yield _explicit(found, np.concatenate([whole[0::2], whole[1::2]]))


def _explicit(found: Identification, frequencies: Any) -> rs.RotarySpec:
    assert found.closest is not None
    schedule = rs.Explicit(tuple(float(theta) for theta in frequencies))
    return replace(found.closest, base=10_000.0, schedule=schedule, attention_factor=None)


def _matches(spec: rs.RotarySpec, found: Identification) -> bool:
    return not _difference(spec, found)


def _difference(spec: rs.RotarySpec, found: Identification) -> str:
    """How the measured numbers differ from a claim's; empty where they do not."""
    expected = rs.frequencies(spec)
    turning = expected[expected != 0]
    measured = np.abs(found.frequencies)
    if len(measured) != len(turning):
        return f"{2 * len(measured)} lanes turn, the config says {2 * len(turning)}"
    compared = Measured(measured, found.uncertainty, spec.rotary_dim)
    if not compared.near(turning, spec.base):
        worst = int(np.argmax(np.abs(measured - turning) / turning))
        return f"pair {worst} turns by {measured[worst]:.6g}, the config says {turning[worst]:.6g}"
    if spec.sections is not None:
        if found.axis_of_pair is None:
            return "pairs follow no axis alone, the config says one each"
        claimed = tuple(a for a, theta in zip(spec.axis_of_pair or (), expected) if theta)
        if found.axis_of_pair != claimed:
            axes = spec.sections.axes
            return f"{listed(found.axis_of_pair, axes)}, the config says {listed(claimed, axes)}"
    factor = rs.attention_factor(spec)
    if abs(found.attention_factor - factor) > 1e-5 * factor:
        return f"attention factor {found.attention_factor:.6g}, the config says {factor:.6g}"
    return ""
