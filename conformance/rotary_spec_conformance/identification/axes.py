"""Which axis turns which pair, and the sections that say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import rotary_spec as rs
from rotary_spec import Sections, SpecError
from rotary_spec.sections import Pairing
from rotary_spec_conformance.axis_orders import axis_orders, in_words, listed
from rotary_spec_conformance.identification.schedule_fit import Fit, Measured, fits
from rotary_spec_conformance.identification.structure import Structure
from rotary_spec_conformance.identification.unwrap import Frequencies
from rotary_spec_conformance.probe import Floats, Probe, TargetMisbehaved
from rotary_spec_conformance.responses import pair_responses

FURTHEST = 2**16
"""Where an axis stands alone at most; a pair that has not turned there counts as turning none."""


@dataclass(frozen=True)
class AxialFit:
    """A schedule with the sections that explain diagonal frequencies; None where none do."""

    fit: Fit
    sections: Sections | None


def axis_of_pair(
    probe: Probe, structure: Structure, measured: Frequencies, roundoff: float
) -> tuple[tuple[int, ...] | None, list[str]]:
    """The axis that turns each pair of a structure, where one does by itself; and findings."""
    axes = probe.target.axes
    assert axes is not None
    far = 2 ** np.arange(min(max(measured.reached, 1), FURTHEST).bit_length())
    places = np.concatenate([np.outer(unit, far) for unit in np.eye(axes, dtype=np.int64)], axis=1)
    if probe.target.coordinates:
        places = places / 64.0  # integers may all be whole turns, as those of 2 pi
    try:
        at = pair_responses(probe, structure.inputs, structure.outputs, places, axial=True)
    except TargetMisbehaved as problem:
        return None, [f"with its axes at different positions it {problem}"]
    turned = at.angles.reshape(axes, len(far), -1) - measured.origin
    expected = places.max(axis=0).reshape(axes, len(far), 1) * measured.theta
    # Each angle carries its own rounding, and what the position makes of the frequency's.
    noise = 64 * roundoff + np.abs(expected) * 2.0**-18
    follows = (np.abs(_wrapped(turned - expected)) <= noise).all(axis=1)
    still = (np.abs(_wrapped(turned)) <= noise).all(axis=1)
    alone = (follows & ~still).sum(axis=0) == 1
    others = (follows | still).all(axis=0)
    unclear = np.flatnonzero(~(alone & others))
    if len(unclear):
        pair = int(unclear[0])
        turning = np.flatnonzero(~still[:, pair]).tolist()
        first, second = structure.inputs[pair]
        return None, [
            f"{len(unclear)} of {len(structure.inputs)} pairs do not follow one axis: lanes "
            f"{first} and {second} turn with {in_words(turning)}"
            + (", by other angles than along the diagonal" if len(turning) == 1 else "")
        ]
    return tuple(int(axis) for axis in (follows & ~still).argmax(axis=0)), []


def axial_fits(
    measured: Measured, followed: tuple[int, ...], axes: int, pairing: Pairing
) -> tuple[list[AxialFit], list[str]]:
    """Every schedule with sections that explains the frequencies, the simplest first; never empty.

    ``followed`` is the axis of each pair that turns; pairs behind them stand still, whichever axis
    they are given to.
    """
    standing = len(measured.theta) - len(followed)
    whole = [(*followed, *(axis,) * standing) for axis in range(axes)][: axes if standing else 1]
    orders = [one for turning in whole for one in axis_orders(turning, axes)]
    named = next((one.sections for one in orders if one.in_order), None)
    if named is None or (pairing == "within" and named.order != "chunked"):
        finding = f"no order of sections says which axis turns which pair: {listed(followed, axes)}"
        if orders and not orders[0].in_order:
            finding += f". Hint: {orders[0]}"
        return [AxialFit(fit, None) for fit in fits(measured)], [finding]
    named = replace(named, pairing=pairing)
    found = list(_named(measured, named))
    explicit = rs.Explicit(tuple(float(theta) for theta in measured.theta))
    return found or [AxialFit(Fit(10_000.0, explicit), named)], []


def _named(measured: Measured, sections: Sections) -> Iterator[AxialFit]:
    """Schedules that have a name, for frequencies that go on, start anew or take turns."""
    axis, rank = np.asarray(sections.axis_of_pair()), np.asarray(sections.ranks())
    own = [np.flatnonzero(axis == a) for a in range(sections.axes)]
    yield from (AxialFit(fit, sections) for fit in _without_explicit(measured))
    restart = [_part(measured, pairs) for pairs in own]
    largest = restart[int(np.argmax(sections.sizes))]
    for fit in _without_explicit(largest):
        if all(part.explained_by(fit.base, fit.schedule) for part in restart):
            yield AxialFit(fit, replace(sections, frequencies="restart"))
    try:
        strided = replace(sections, frequencies="strided")
    except SpecError:
        return
    for fit in _without_explicit(_part(measured, np.argsort(sections.axes * rank + axis))):
        yield AxialFit(fit, strided)


def _part(measured: Measured, pairs: np.ndarray) -> Measured:
    return replace(
        measured,
        theta=measured.theta[pairs],
        uncertainty=measured.uncertainty[pairs],
        rotary_dim=2 * len(pairs),
    )


def _without_explicit(measured: Measured) -> list[Fit]:
    return [fit for fit in fits(measured) if not isinstance(fit.schedule, rs.Explicit)]


def _wrapped(angle: Floats) -> Floats:
    out: Floats = np.arctan2(np.sin(angle), np.cos(angle))
    return out
