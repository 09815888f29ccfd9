"""ROT, PART and POS-1: the operator at small positions, read off its one-hot responses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.layouts import input_lanes, output_lanes, pair_lanes
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import OPERATOR_POSITIONS, Context, worst
from rotary_spec_conformance.probe import Floats
from rotary_spec_conformance.registry import NotRun, Outcome, clause

STRUCTURE = ("ROT-2", "PART-1")
"""Clauses that must hold before angles can be read from the spec's pairs."""


def _pair_mask(context: Context) -> npt.NDArray[np.bool_]:
    """Entries of the operator that belong to a pair's 2 x 2 block."""
    d = context.target.head_dim
    mask = np.zeros((d, d), dtype=bool)
    for outs in output_lanes(context.spec):
        for ins in input_lanes(context.spec):
            mask[list(outs), list(ins)] = True
    return mask


@clause("PART-1", "lanes outside rotary_dim pass through", needs=("EQV-2",))
def pass_through(context: Context, dtype: str) -> Outcome:
    """Bit for bit, and they reach no other lane."""
    rotated = {lane for lanes in input_lanes(context.spec) for lane in lanes}
    kept = [lane for lane in range(context.target.head_dim) if lane not in rotated]
    if not kept:
        raise NotRun("every lane is rotated")
    x = context.rounded(context.random(1, 2, 6, context.target.head_dim), dtype)
    y = context.fresh(dtype)(x, np.arange(6))
    operator = context.operator
    leaks = operator[:, kept].copy()
    leaks[:, range(len(kept)), kept] -= 1.0
    return worst(
        np.concatenate([(y - x)[..., kept].ravel(), leaks.ravel()]),
        0.0,
        "abs",
        lambda i: {},
        _kept_message(kept, operator),
    )


def _kept_message(kept: list[int], operator: Floats) -> str:
    changed = [
        lane for lane in kept if np.abs(operator[:, lane] - np.eye(len(operator[0]))[lane]).max()
    ]
    return (
        f"{len(changed)} of the {len(kept)} lanes that the spec leaves alone are changed"
        + (f", lane {changed[0]} first" if changed else "")
        + ": is rotary_dim larger here, or the other end of the head rotated?"
    )


@clause("ROT-2", "pairs are the spec's", needs=("EQV-2",))
def pairs(context: Context, dtype: str) -> Outcome:
    """A rotated lane sees its own pair and nothing else."""
    operator = context.operator
    mask = _pair_mask(context)
    lanes = sorted(lane for lanes in output_lanes(context.spec) for lane in lanes)
    leak = np.where(mask, 0.0, operator)[:, lanes]
    tolerance = tolerances.component(dtype, rs.attention_factor(context.spec))
    outcome = worst(
        leak,
        tolerance,
        "abs",
        lambda i: {"position": int(OPERATOR_POSITIONS[i[0]]), "lane": lanes[i[1]]},
    )
    if outcome.holds:
        # Lanes that never mix are not pairs either: 1 and 2 show at positions where all turn.
        return outcome
    return Outcome(
        outcome.deviation, outcome.tolerance, "abs", outcome.where, _pairing(context, operator)
    )


def _pairing(context: Context, operator: Floats) -> str:
    """What is paired instead, with a hint where it is the other layout."""
    spec = context.spec
    at = operator[1] - operator[0]  # what position 1 adds: cos - 1 and sin
    first, second = input_lanes(spec)
    row = output_lanes(spec)[0][0]
    partner = int(np.argmax(np.where(np.arange(at.shape[1]) == first[0], 0.0, np.abs(at[row]))))
    text = f"lane {first[0]} is paired with lane {partner}, the spec pairs it with {second[0]}"
    for layout in ("interleaved", "half"):
        other = pair_lanes(layout, spec.rotary_dim, spec.rotary_start)
        mask = np.zeros(at.shape, dtype=bool)
        for outs in other:
            for ins in other:
                mask[list(outs), list(ins)] = True
        inside = [lane for lanes in other for lane in lanes]
        if layout != spec.layout and not np.where(mask, 0.0, operator[:])[:, inside].any():
            return f"{text}. Hint: this is the {layout} layout"
    return text


@clause("ROT-4", "magnitude is the attention factor", needs=STRUCTURE)
def magnitude(context: Context, dtype: str) -> Outcome:
    """Every pair keeps its length, times A."""
    expected = rs.attention_factor(context.spec)
    sizes = context.small.magnitudes
    outcome = worst(
        sizes - expected,
        2 * tolerances.component(dtype, expected),
        "abs",
        lambda i: {"position": int(context.small.positions[i[0]]), "pair": i[1]},
    )
    return Outcome(
        outcome.deviation,
        outcome.tolerance,
        outcome.unit,
        outcome.where,
        f"pairs are scaled by {np.median(sizes):.6g}, the spec says {expected:.6g} "
        "(scores are off by the square of that)",
    )


@clause("ROT-3", "direction is the spec's", needs=STRUCTURE)
def direction(context: Context, dtype: str) -> Outcome:
    """Share of pairs that turn the other way between positions 0 and 1."""
    turned = _turn(context)
    sign = -1.0 if context.spec.inverse else 1.0
    wrong = float(np.mean(sign * turned < 0))
    return Outcome(
        wrong,
        0.0,
        "rel",
        {"position": 1, "pair": int(np.argmax(sign * turned < 0))},
        f"{wrong:.0%} of the pairs rotate by -m*theta where the spec rotates by +m*theta: the "
        "sine has the wrong sign"
        if sign > 0
        else f"{wrong:.0%} of the pairs rotate forwards, the spec is inverse",
    )


def _turn(context: Context) -> Floats:
    """Angle from position 0 to position 1 of every pair, radians in (-pi, pi]."""
    angles = context.small.angles
    if len(angles) < 2:
        raise NotRun("position 1 is not served")
    step = angles[1] - angles[0]
    turned: Floats = np.arctan2(np.sin(step), np.cos(step))
    return turned


@clause("POS-1", "position 0 does not rotate", needs=STRUCTURE)
def origin(context: Context, dtype: str) -> Outcome:
    """The first token stays where it is: m = 0, not 1."""
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    angles = context.small.angles[0]
    theta = rs.frequencies(context.spec)
    outcome = worst(
        angles,
        2 * tolerances.component(dtype),
        "rad",
        lambda i: {"position": 0, "pair": i[0]},
    )
    shift = angles[0] / theta[0] * (-1 if context.spec.inverse else 1)
    return Outcome(
        outcome.deviation,
        outcome.tolerance,
        "rad",
        outcome.where,
        f"position 0 is rotated as if it were position {shift:.3g}: are positions counted from 1?",
    )


@clause(
    "ROT-1",
    "y = A R x on random input",
    needs=(*STRUCTURE, "ROT-3", "ROT-4", "POS-1", "FREQ-1", "LIN-1"),
    dtypes="each",
)
def definition(context: Context, dtype: str) -> Outcome:
    """The definition itself, on Gaussian features at small positions."""
    ids = np.arange(min(16, context.max_position))
    x = context.rounded(context.random(2, 3, len(ids), context.target.head_dim), dtype)
    y = context.fresh(dtype)(x, ids)
    expected = context.expected(x, ids)
    u = tolerances.UNIT_ROUNDOFF[dtype]
    bound = context.bound(x, ids, dtype)
    return worst(
        y - expected,
        bound + np.where(bound > 0, u * np.abs(expected), 0.0),
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "pairs, angles and magnitudes are right one by one, their combination is not",
    )
