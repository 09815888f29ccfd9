"""FREQ: every pair turns at the frequency of the spec's schedule."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np

import rotary_spec as rs
from rotary_spec import Sections
from rotary_spec.sections import SectionFrequencies
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.axis_orders import ORDERS
from rotary_spec_conformance.checks.rotation import STRUCTURE
from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Floats
from rotary_spec_conformance.registry import NotRun, Outcome, clause
from rotary_spec_conformance.responses import apart


@clause("FREQ-1", "frequencies are the schedule's", needs=(*STRUCTURE, "STATE-1"))
def frequencies(context: Context, dtype: str) -> Outcome:
    """Angles from position 0 to 1 .. 7 and to powers of two, whatever the direction."""
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    small = context.small
    if len(small.positions) < 2:
        raise NotRun("position 1 is not served")
    positions = small.positions[1:]
    theta = rs.frequencies(context.spec)
    turned = small.angles[1:] - small.angles[0]
    sign = -1.0 if apart(turned[0], -theta).sum() < apart(turned[0], theta).sum() else 1.0
    error = sign * turned - positions[:, None] * theta
    outcome = worst(
        np.arctan2(np.sin(error), np.cos(error)),
        context.float32_angle(positions) + 4 * tolerances.component(dtype),
        "rad",
        lambda i: {"position": int(positions[i[0]]), "pair": i[1]},
    )
    if not np.any(turned):
        message = "nothing is rotated: every position gives the same"
    elif narrow := _rounded_to(sign * turned[0], theta, context.float32_angle([1])[0]):
        message = f"the frequencies are the spec's, rounded to {narrow}: was a buffer cast to it?"
    else:
        # Angles from position 0 to 1 are frequencies where they are below one turn.
        message = describe((sign * turned[0]) % (2 * np.pi), theta, context.spec)
    return replace(outcome, message=message)


def _rounded_to(measured: Floats, theta: Floats, angle: Floats) -> str | None:
    """The 16-bit dtype whose rounding of the frequencies gives the measured ones, if any."""
    bound = angle + 4 * tolerances.component("float32")
    fraction, exponent = np.frexp(theta)
    for dtype, bits in (("bfloat16", 8), ("float16", 11)):
        rounded = np.ldexp(np.rint(fraction * 2**bits), exponent - bits)
        off = np.abs(rounded - theta) > bound
        if off.any() and (np.abs(measured - rounded) <= bound).all():
            return dtype
    return None


def _otherwise_shared(measured: Floats, theta: Floats, spec: rs.RotarySpec) -> str | None:
    """How else the frequencies are shared out among the axes, where that explains them."""
    if spec.sections is None:
        return None
    for order, frequencies in product(ORDERS, get_args(SectionFrequencies)):
        try:
            other = replace(
                spec, sections=Sections(spec.sections.sizes, order, frequencies=frequencies)
            )
        except rs.SpecError:
            continue
        expected = rs.frequencies(other) % (2 * np.pi)
        if np.allclose(measured, expected, rtol=1e-4, atol=0) and not np.allclose(expected, theta):
            found, said = (
                f"{s.frequencies} between the axes, in {s.order} order"
                for s in (other.sections, spec.sections)
                if s is not None
            )
            return f"the frequencies are {found}; the spec's are {said}"
    return None


def describe(measured: Floats, theta: Floats, spec: rs.RotarySpec) -> str:
    """In words, how measured frequencies differ from the spec's."""
    if (sharing := _otherwise_shared(measured, theta, spec)) is not None:
        return sharing
    with np.errstate(all="ignore"):
        ratio = measured / theta
        exponent = -2 * np.arange(len(theta)) / spec.rotary_dim
        bases = measured[1:] ** (1 / exponent[1:])
        one_base = len(bases) > 0 and np.ptp(bases) < 1e-3 * np.median(bases)
        one_ratio = np.ptp(ratio) < 1e-3 * abs(np.median(ratio))
    if one_base and abs(ratio[0] - 1) < 1e-4 and abs(np.median(bases) / spec.base - 1) > 1e-3:
        share = spec.rotary_dim / spec.head_dim
        hint = ": is head_dim in its exponent, where the spec has rotary_dim?"
        return (
            f"the frequencies fit base {np.median(bases):.6g}, the spec says {spec.base:.6g}"
            f"{hint if share < 1 and np.isclose(np.median(bases), spec.base**share) else ''}"
        )
    if one_ratio and abs(np.median(ratio) - 1) > 1e-3:
        factor = spec.schedule.factor if isinstance(spec.schedule, rs.Linear) else 1.0
        return (
            f"every frequency is {np.median(ratio):.6g} times the spec's: a linear factor of "
            f"{factor / np.median(ratio):.6g} where the spec has {factor:.6g}, or positions "
            "counted in other steps?"
        )
    off = np.flatnonzero(np.abs(ratio - 1) > 1e-4)
    if len(off):
        return (
            f"{len(off)} of {len(theta)} pairs turn at other frequencies, pair {off[0]} at "
            f"{measured[off[0]]:.6g} instead of {theta[off[0]]:.6g} radians per position: another "
            "schedule, or another rotary_dim in its exponent?"
        )
    return "angles drift from the schedule's as positions grow: are positions or tables rounded?"
