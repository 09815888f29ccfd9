"""Frequencies from angles: doubled positions double the angle, so each step refines the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rotary_spec_conformance.context import (
    LIMIT,
    TABLE_GROWTH,
    peak_memory,
)
from rotary_spec_conformance.identification.structure import NotRotary, Structure
from rotary_spec_conformance.probe import Floats, Probe, TargetMisbehaved
from rotary_spec_conformance.responses import PairResponses, pair_responses

FIRST = np.arange(4)


@dataclass(frozen=True)
class Frequencies:
    """Measured frequencies, one per pair of a `Structure`.

    Attributes
    ----------
    theta : array (pairs,)
        Radians per position, negative where a pair turns the other way.
    uncertainty : array (pairs,)
        Of ``theta``, from the rounding of the outputs at the last position that agreed.
    origin : array (pairs,)
        Angle at position 0.
    magnitude : array (pairs,)
    reached : int
        Last position used.
    findings : list of str
    """

    theta: Floats
    uncertainty: Floats
    origin: Floats
    magnitude: Floats
    reached: int
    findings: list[str]


def unwrap(probe: Probe, structure: Structure, roundoff: float, end: int) -> Frequencies:
    """Follow the angles of every pair over doubling positions.

    Parameters
    ----------
    probe : Probe
    structure : Structure
    roundoff : float
        Unit roundoff of the outputs.
    end : int
        Positions stay below it.

    Raises
    ------
    NotRotary
        If magnitudes change with the position, as in xPos.
    """
    # What takes coordinates may turn by whole turns at every integer: start well below one.
    position = 2.0**-8 if probe.target.coordinates else 1
    start = FIRST[end > FIRST] * position
    first = pair_responses(probe, structure.inputs, structure.outputs, start)
    if len(first.positions) < 2:
        raise NotRotary("positions", f"only {end} position is served: no angle to follow")
    noise = 4 * roundoff
    origin = first.angles[0]
    magnitude = first.magnitudes[0]
    theta = _wrapped(first.angles[1] - origin) / position
    uncertainty = np.full(len(theta), noise / position)
    active = np.ones(len(theta), dtype=bool)
    reached, findings, peak = position, [], peak_memory()
    _check_magnitude(first, magnitude, roundoff)
    position *= 2
    while position < min(end, LIMIT):
        try:
            at = pair_responses(probe, structure.inputs, structure.outputs, [position] * len(FIRST))
        except TargetMisbehaved as problem:
            findings.append(f"at position {position:,} it {problem}")
            break
        _check_magnitude(at, magnitude, roundoff)
        surprise = _wrapped(at.angles[0] - origin - position * theta)
        agrees = np.abs(surprise) <= 8 * (uncertainty * position + noise)
        if not agrees[active].any():
            findings.append(
                f"angles leave their frequencies between positions {position // 2:,} and "
                f"{position:,}"
            )
            break
        active &= agrees
        theta = np.where(active, theta + surprise / position, theta)
        uncertainty = np.where(active, noise / position, uncertainty)
        reached = position
        grown, peak = peak_memory() - peak, peak_memory()
        if grown > TABLE_GROWTH:
            findings.append(f"memory grows with the position: not probed beyond {position:,}")
            break
        position *= 2
    return Frequencies(theta, uncertainty, origin, magnitude, int(reached), findings)


def _check_magnitude(responses: PairResponses, expected: Floats, roundoff: float) -> None:
    change = np.abs(responses.magnitudes - expected).max(axis=1)
    worst = int(np.argmax(change))
    if not change[worst] <= 64 * roundoff * expected.max():
        raise NotRotary(
            "norm",
            "magnitudes change with the position, as in xPos: by "
            f"{change[worst]:.2g} at position {responses.positions[worst]:,}",
            float(change[worst]),
        )


def _wrapped(angle: Floats) -> Floats:
    out: Floats = np.arctan2(np.sin(angle), np.cos(angle))
    return out
