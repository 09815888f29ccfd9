"""ROT, PART and POS-1: the operator at small positions, read off its one-hot responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.layouts import input_lanes, output_lanes
from rotary_spec.sections import Pairing
from rotary_spec.spec import LAYOUTS
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import OPERATOR_POSITIONS, Context, worst
from rotary_spec_conformance.probe import Floats
from rotary_spec_conformance.registry import NotRun, Outcome, clause
from rotary_spec_conformance.responses import apart

STRUCTURE = ("ROT-2", "PART-1")
"""Clauses that must hold before angles can be read from the spec's pairs."""

Lanes = tuple[tuple[int, ...], tuple[int, ...]]


def _pair_mask(inputs: Lanes, outputs: Lanes, head_dim: int) -> npt.NDArray[np.bool_]:
    """Entries of the operator that belong to a pair's 2 x 2 block."""
    mask = np.zeros((head_dim, head_dim), dtype=bool)
    for outs, ins in product(outputs, inputs):
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
    """A rotated lane sees its own pair and nothing else, and both lanes turn by one angle."""
    operator, spec = context.operator, context.spec
    outs = output_lanes(spec)
    lanes = sorted(outs[0] + outs[1])
    leak = np.where(_pair_mask(input_lanes(spec), outs, spec.head_dim), 0.0, operator)[:, lanes]
    outcome = worst(
        leak,
        tolerances.component(dtype, rs.attention_factor(spec)),
        "abs",
        lambda i: {"position": int(OPERATOR_POSITIONS[i[0]]), "lane": lanes[i[1]]},
    )
    if not outcome.holds:
        return replace(outcome, message=_pairing(spec, operator))
    turned = _one_angle(context, dtype)
    return outcome if turned.holds else turned


def _pairing(spec: rs.RotarySpec, operator: Floats) -> str:
    """What is paired instead, with a hint where other layouts explain it."""
    fit = _fitting(spec, operator)
    if fit and (fit.output_layout or spec.output_layout):
        return (
            f"the input layout is {fit.layout} and the output layout "
            f"{fit.output_layout or fit.layout}, the spec says "
            f"{spec.layout} and {spec.output_layout or spec.layout}"
        )
    first, second = input_lanes(spec)
    added = np.abs(operator[-1] - operator[0])[output_lanes(spec)[0][0]]  # cos - 1 and sin
    added[first[0]] = 0.0
    return (
        f"lane {first[0]} is paired with lane {int(np.argmax(added))}, the spec pairs it with "
        f"{second[0]}{f'. Hint: this is {_named(fit, spec)}' if fit else ''}"
    )


def _named(fit: rs.RotarySpec, spec: rs.RotarySpec) -> str:
    if fit.blocks != spec.blocks:
        return f"the {fit.layout} layout " + (
            "within the lanes of each axis" if len(fit.blocks) > 1 else "across all rotated lanes"
        )
    return f"the {fit.layout} layout"


def _fitting(spec: rs.RotarySpec, operator: Floats) -> rs.RotarySpec | None:
    """The spec with the layouts whose pairs hold every entry of the rotated lanes, if any."""
    for other in _arrangements(spec):
        ins, outs = input_lanes(other), output_lanes(other)
        rest = np.where(_pair_mask(ins, outs, spec.head_dim), 0.0, operator)
        if not rest[:, sorted(outs[0] + outs[1])].any():
            return other
    return None


def _arrangements(spec: rs.RotarySpec) -> Iterator[rs.RotarySpec]:
    """The spec in every layout, its pairs across all lanes or within those of each axis."""
    kinds = [spec.sections]
    if spec.sections is not None and spec.sections.order == "chunked":
        kinds = [replace(spec.sections, pairing=pairing) for pairing in get_args(Pairing)]
    for sections, taken, given in product(kinds, LAYOUTS, LAYOUTS):
        yield replace(spec, layout=taken, output_layout=given, sections=sections)


def _one_angle(context: Context, dtype: str) -> Outcome:
    """Whether each pair's block has the form [[c, -s], [s, c]], within the bound of each entry."""
    spec, operator = context.spec, context.operator
    (first, second), (to_first, to_second) = input_lanes(spec), output_lanes(spec)
    c, minus_s = operator[:, to_first, first], operator[:, to_first, second]
    s, other_c = operator[:, to_second, first], operator[:, to_second, second]
    positions = OPERATOR_POSITIONS[: len(operator)]
    bound = tolerances.component(dtype) + context.float32_angle(positions)
    outcome = worst(
        np.stack([c - other_c, s + minus_s]),
        2 * rs.attention_factor(spec) * bound,
        "abs",
        lambda i: {"position": int(positions[i[1]]), "pair": i[2]},
    )
    angles = np.arctan2(-minus_s, c), np.arctan2(s, other_c)
    if not np.allclose(angles[0][0], angles[1][0], atol=1e-3):
        hint = "a reflection?"
    elif np.allclose(angles[0], -angles[1], atol=1e-3):
        hint = "has one of the two sines the wrong sign?"
    else:
        hint = "is a table laid out by repeat for repeat_interleave, or the other way round?"
    message = f"the two lanes of a pair turn by different angles, which is not a rotation: {hint}"
    return replace(outcome, message=message)


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
    narrow = None if dtype in tolerances.NARROW else _narrow_dtype(context.small.matrix)
    if narrow is not None:
        message = f"cos and sin are rounded to {narrow}: is the table kept in that dtype?"
    else:
        message = (
            f"pairs are scaled by {np.median(sizes):.6g}, the spec says {expected:.6g} "
            "(scores are off by the square of that)"
        )
    return replace(outcome, message=message)


def _narrow_dtype(values: Floats) -> str | None:
    """The 16-bit dtype that holds all of the values, where they say anything about one."""
    if not np.isfinite(values).all() or np.isin(np.abs(values), (0.0, 1.0)).all():
        return None
    fraction, _ = np.frexp(values)
    for dtype, bits in (("bfloat16", 8), ("float16", 11)):
        if not (fraction * 2**bits % 1).any():
            return dtype
    return None


@clause("ROT-3", "direction is the spec's", needs=STRUCTURE)
def direction(context: Context, dtype: str) -> Outcome:
    """Share of pairs that turn the other way between positions 0 and 1."""
    turned = _turn(context)
    sign = -1.0 if context.spec.inverse else 1.0
    theta = sign * rs.frequencies(context.spec)
    backwards = apart(turned, -theta) < apart(turned, theta)
    wrong = float(np.mean(backwards))
    return Outcome(
        wrong,
        0.0,
        "rel",
        {"position": 1, "pair": int(np.argmax(backwards))},
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
    if np.allclose(np.abs(angles), np.pi / 2, atol=1e-3):
        message = "position 0 is rotated by a quarter turn: are cos and sin swapped?"
    else:
        shift = angles[0] / theta[0] * (-1 if context.spec.inverse else 1)
        message = f"position 0 is rotated as if it were position {shift:.3g}"
        message += ": are positions counted from 1?" if abs(shift - 1) < 1e-3 else ""
    return replace(outcome, message=message)


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
        "pairs, angles and magnitudes are right one by one, their combination is not"
        if dtype == context.dtypes[0]
        else f"right in {context.dtypes[0]}, wrong in {dtype}: is there other code for it?",
    )
