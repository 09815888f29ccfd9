"""AXIS: where a token stands on several axes, every pair turns with its own.

All other checks run along the diagonal, where text stands: every axis at the same position.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.layouts import output_lanes
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.axis_orders import axis_orders, in_words, listed
from rotary_spec_conformance.checks.rotation import STRUCTURE
from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Floats, Places
from rotary_spec_conformance.registry import NotRun, Outcome, clause
from rotary_spec_conformance.responses import PairResponses, angle_errors

ALONE = (1, 7, 61, 509, 4093, 65_521)
"""Where one axis stands while the others stay: far enough for slow pairs to show."""

HEIGHT, WIDTH = 3, 4
"""Of the images below, in tokens."""

COORDINATES = (-1.0, -0.75, -0.3125, 0.125, 0.5, 0.9375, 2.5, 16.03125)
"""In [-1, 1] and between pixels; float32 holds them, and twice their value, exactly."""


def _axes(context: Context) -> int:
    if context.target.axes is None:
        raise NotRun("a position is one number")
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    return context.target.axes


def _shown(place: Places) -> str:
    numbers = ", ".join(f"{coordinate:,}" for coordinate in place.tolist())
    return f"at ({numbers})"


@clause(
    "AXIS-1",
    "every pair turns with its own axis",
    needs=(*STRUCTURE, "ROT-3", "ROT-4", "POS-1", "FREQ-1"),
)
def own_axis(context: Context, dtype: str) -> Outcome:
    """Each axis alone, the others at 0 and then at positions of their own."""
    axes = _axes(context)
    far = context.positions_below(*ALONE)
    elsewhere = 1 + np.arange(axes)  # distinct, not zero, and below FEWEST
    alone = np.concatenate([np.outer(unit, far) for unit in np.eye(axes, dtype=np.int64)], axis=1)
    places = np.concatenate([alone, np.where(alone == 0, elsewhere[:, None], alone)], axis=1)
    responses = context.pair_responses(context.fresh(dtype), places, axial=True)
    outcome = worst(
        angle_errors(responses, *context.cos_sin(places)),
        tolerances.float32_angle(context.spec, places) + 2 * tolerances.component(dtype),
        "rad",
        lambda i: {"call": _shown(places[:, i[0]]), "pair": i[1]},
    )
    if outcome.holds:
        return outcome
    moves = _moves(responses, len(far), axes, 2 * tolerances.component(dtype))
    message = _followed(context.spec, moves, int(outcome.where["pair"]))
    return Outcome(outcome.deviation, outcome.tolerance, "rad", outcome.where, message)


def _moves(responses: PairResponses, count: int, axes: int, noise: float) -> npt.NDArray[np.bool_]:
    """Whether each axis, alone, turns each pair, shape (axes, pairs)."""
    angles = responses.angles[: axes * count].reshape(axes, count, -1)
    return np.asarray((np.abs(angles) > noise).any(axis=1))


def _followed(spec: rs.RotarySpec, moves: npt.NDArray[np.bool_], pair: int) -> str:
    """Which axes the pairs follow instead."""
    assert spec.sections is not None
    assert spec.axis_of_pair is not None
    axes, own = spec.sections.axes, np.asarray(spec.axis_of_pair)
    turning = rs.frequencies(spec) != 0
    several = np.flatnonzero(turning & (moves.sum(axis=0) != 1))
    if len(several):
        pair = pair if pair in several else int(several[0])
        turning_it = in_words(np.flatnonzero(moves[:, pair]).tolist())
        return f"pair {pair} turns with {turning_it}, the spec turns it with axis {own[pair]}"
    followed = np.where(turning, moves.argmax(axis=0), own)
    if (followed == own).all():
        return (
            f"pair {pair} turns with its axis, but its angle is another when the other axes stand "
            "elsewhere"
        )
    pair = pair if followed[pair] != own[pair] else int(np.argmax(followed != own))
    said = f"pair {pair} turns with axis {followed[pair]}, the spec turns it with axis {own[pair]}"
    if len(set(followed[turning].tolist())) == 1:
        return f"{said}: axis {followed[pair]} turns every pair, the other axes are ignored"
    named = list(axis_orders(followed.tolist(), axes))
    if not named:
        return f"{said}: {listed(followed.tolist(), axes)}"
    fewest = min((one.differences(spec.sections) for one in named), key=lambda words: len(words))
    return f"{said}: {' and '.join(fewest)}"


@clause("AXIS-2", "distinct positions on all axes are honoured", needs=("AXIS-1", "ROT-1", "POS-2"))
def distinct_positions(context: Context, dtype: str) -> Outcome:
    """Images, and beside text in one batch; scores depend on the distance along each axis."""
    axes = _axes(context)
    outcomes = [_images(context, dtype, axes), *_shifts(context, dtype, axes)]
    return next((outcome for outcome in outcomes if not outcome.holds), outcomes[0])


def _images(context: Context, dtype: str, axes: int) -> Outcome:
    """Row 0 of the batch is text; the others are images at different places."""
    count = HEIGHT * WIDTH
    scan = np.stack([np.zeros(count), np.arange(count) // WIDTH, np.arange(count) % WIDTH])
    image = np.resize(scan[-axes:] if axes < 3 else scan, (axes, count)).astype(np.int64)
    corner = (3 * np.arange(axes) + 2)[:, None]  # a place of its own on every axis
    rows = [np.broadcast_to(np.arange(count), image.shape), image, image[:, ::-1] + corner]
    if not context.target.row_positions:
        rows = rows[2:]
    places = np.stack(rows, axis=1) % context.max_position
    x = context.rounded(context.random(len(rows), 2, count, context.target.head_dim), dtype)
    given = places if context.target.row_positions else places[:, 0]
    y = context.fresh(dtype)(x, given, axial=True)
    outcome = worst(
        y - context.expected(x, given, axial=True),
        context.bound(x, given, dtype, axial=True),
        "abs",
        lambda i: {"call": f"batch row {i[0]} {_shown(places[:, i[0], i[2]])}", "lane": i[3]},
    )
    return Outcome(
        outcome.deviation,
        outcome.tolerance,
        "abs",
        outcome.where,
        _row_message(context, x, y, given),
    )


def _row_message(context: Context, x: Floats, y: Floats, places: Places) -> str:
    """What the rows of a batch are rotated by instead of their own positions."""
    if places.ndim == 3:
        for row in range(1, places.shape[1]):
            for other, words in (
                (places[:, 0], "the ids of batch row 0"),
                (_on_axis(places[:, row], 0), "its positions on axis 0 alone"),
            ):
                there = context.expected(x[row : row + 1], other, axial=True)
                if np.abs(y[row : row + 1] - there).max() < 1e-2:
                    return f"batch row {row} is rotated by {words}, beside text in batch row 0"
    return "pairs follow their axes one by one, not where tokens stand elsewhere on each axis"


def _on_axis(places: Places, axis: int) -> Places:
    """Every axis where one of them stands."""
    return np.broadcast_to(places[axis], places.shape)


def _shifts(context: Context, dtype: str, axes: int) -> list[Outcome]:
    """<R_m q, R_n k> is the same when both move by s along one axis; one outcome per axis."""
    shifts = context.positions_below(0, 1, 10, 100, 1_000, 10_000)
    shifts = shifts[shifts + 2 * axes + 1 < context.max_position]
    if len(shifts) < 2:
        return []
    query, key = np.arange(axes), np.arange(axes)[::-1] + 1 + np.arange(axes) % 2
    vectors = context.rounded(context.random(2, context.target.head_dim), dtype)
    moved = np.eye(axes, dtype=np.int64)[:, :, None] * shifts  # (moved axis, axis, shift)
    places = np.concatenate([moved + query[:, None], moved + key[:, None]])
    places = np.moveaxis(places, 1, 0).reshape(axes, -1)
    turned = context.fresh(dtype).responses(vectors, places, axial=True)
    bound = context.bound(
        vectors[:, None, None].repeat(places.shape[1], 2), places, dtype, axial=True
    )[:, 0]
    size = len(turned), 2, axes, len(shifts), -1
    turned, bound = turned.reshape(size), bound.reshape(size)
    q, k, q_bound, k_bound = turned[0, 0], turned[1, 1], bound[0, 0], bound[1, 1]
    scores = (q * k).sum(-1)
    tolerance = (np.abs(q) * k_bound + q_bound * np.abs(k)).sum(-1)
    if not np.abs(turned[..., list(output_lanes(context.spec)[0])]).any():
        raise NotRun("the output is zero")
    return [
        worst(
            scores[axis] - scores[axis, 0],
            tolerance[axis] + tolerance[axis, 0],
            "abs",
            lambda i: {"position": int(shifts[i[0]])},
            f"the score of two tokens changes when both move along axis {axis}",
        )
        for axis in range(axes)
    ]


@clause("AXIS-3", "coordinates between integers are honoured", needs=("AXIS-1",))
def coordinates(context: Context, dtype: str) -> Outcome:
    """Pixel centres and places in [-1, 1] turn by themselves, not by the next integer."""
    axes = _axes(context)
    if not context.target.coordinates:
        raise NotRun("takes integer positions only")
    line = np.asarray(COORDINATES)
    places = np.stack([np.roll(line, axis) for axis in range(axes)])
    responses = context.pair_responses(context.fresh(dtype), places, axial=True)
    outcome = worst(
        angle_errors(responses, *context.cos_sin(places)),
        tolerances.float32_angle(context.spec, places) + 2 * tolerances.component(dtype),
        "rad",
        lambda i: {"call": _shown(places[:, i[0]]), "pair": i[1]},
    )
    message = "coordinates between integers turn by another angle than theirs"
    for name, rounded in (("rounded", np.rint), ("cut", np.trunc), ("rounded down", np.floor)):
        error = angle_errors(responses, *context.cos_sin(rounded(places)))
        if np.abs(error).max() < 1e-3:
            message = f"coordinates are {name} to integers"
    return Outcome(outcome.deviation, outcome.tolerance, "rad", outcome.where, message)
