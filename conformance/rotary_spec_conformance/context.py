"""What the checks share: fresh probes, the measured operator, pair responses, the oracle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.layouts import input_lanes, output_lanes, put_pairs, rotated_lanes, take_pairs
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.probe import (
    Floats,
    Ints,
    Places,
    Probe,
    TargetMisbehaved,
    on_every_axis,
)
from rotary_spec_conformance.registry import NotRun, Outcome
from rotary_spec_conformance.responses import PairResponses, angle_errors, pair_responses
from rotary_spec_conformance.target import Target

OPERATOR_POSITIONS = np.asarray([0, 1, 2, 3, 5, 7])
LIMIT = 2**31
"""Positions are probed below this, where int32 ends."""

TABLE_GROWTH = 48 * 2**20  # bytes of new peak memory in one rung that say: a table grows here
_RUNG = 32  # positions per rung, in runs of four: one shape for every call


class Context:
    """One run of the checks on one target.

    Parameters
    ----------
    target : Target
    spec : RotarySpec
    max_position : int
        Positions below it must be right.
    quick : bool
        Fewer positions per rung of the ladder.
    """

    def __init__(self, target: Target, spec: rs.RotarySpec, max_position: int, quick: bool) -> None:
        self.target = target
        self.spec = spec
        self.quick = quick
        self.max_position = max_position
        self._ladders: dict[str, Ladder] = {}

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes under test, the widest arithmetic of 32 bits first."""
        return self.target.supported_dtypes()

    def fresh(self, dtype: str) -> Probe:
        """A new instance (the same one where the target cannot be built afresh)."""
        return Probe(self.target, dtype)

    def random(self, *shape: int, seed: int = 0) -> Floats:
        """Gaussian host values, the same in every run."""
        return np.random.default_rng(seed).standard_normal(shape)

    def rounded(self, x: npt.ArrayLike, dtype: str) -> Floats:
        """``x`` as it arrives at the target: rounded to ``dtype``."""
        return self.target.framework.to_numpy(self.target.framework.asarray(x, dtype))

    def positions_below(self, *candidates: int) -> Ints:
        """Those of the candidates that the target serves."""
        return np.asarray([p for p in candidates if p < self.max_position], dtype=np.int64)

    # The oracle ---------------------------------------------------------------------------------

    def expected(self, x: Floats, positions: Places, *, axial: bool = False) -> Floats:
        """What the spec says, in float64; positions as for `Probe.__call__`."""
        return np.asarray(rs.rotate(x, self._by_heads(positions, axial), self.spec))

    def bound(self, x: Floats, positions: Places, dtype: str, *, axial: bool = False) -> Floats:
        """Tolerance of every output component for input ``x``; see `tolerances`."""
        spec, u = self.spec, tolerances.unit_roundoff(dtype)
        magnitude = rs.attention_factor(spec)
        angle = tolerances.float32_angle(spec, self._by_heads(positions, axial))
        first, second = take_pairs(np.abs(x), spec, np)
        size = magnitude * (first + second) * (5 * u + angle)
        out = np.zeros_like(x)
        out[..., rotated_lanes(spec)] = put_pairs(size, size, spec, np)
        return out

    def _by_heads(self, positions: Places, axial: bool) -> Places:
        """Positions as they broadcast against (batch, heads, seq), per axis."""
        places = np.asarray(positions) if axial else self.everywhere(positions)
        rows = places.ndim - (self.target.axes is not None)
        return places if rows == 1 else places[..., None, :]

    def everywhere(self, positions: npt.ArrayLike) -> Places:
        """Positions as the spec takes them, with every axis at the same place."""
        return on_every_axis(positions, self.target.axes)

    def cos_sin(self, places: Places) -> tuple[Floats, Floats]:
        """A cos and A sin of every pair, float64; places as the spec takes them."""
        cos, sin = rs.cos_sin(places, self.spec, dtype=np.float64)
        return cos, sin

    def float32_angle(self, positions: npt.ArrayLike) -> Floats:
        """`tolerances.float32_angle` of the spec, shape (positions, pairs)."""
        return tolerances.float32_angle(self.spec, self.everywhere(positions))

    # Measurements -------------------------------------------------------------------------------

    @cached_property
    def operator(self) -> Floats:
        """The whole matrix at `OPERATOR_POSITIONS`, shape (positions, head_dim, head_dim)."""
        dtype = self.dtypes[0]
        positions = self.positions_below(*OPERATOR_POSITIONS)
        columns = self.fresh(dtype).responses(np.eye(self.target.head_dim), positions)
        return np.moveaxis(columns, 0, -1)

    def pair_responses(
        self, probe: Probe, positions: npt.ArrayLike, *, axial: bool = False
    ) -> PairResponses:
        """The 2 x 2 blocks of the spec's pairs."""
        inputs = list(zip(*input_lanes(self.spec), strict=True))
        outputs = list(zip(*output_lanes(self.spec), strict=True))
        return pair_responses(probe, inputs, outputs, positions, axial=axial)

    @cached_property
    def small(self) -> PairResponses:
        """Responses at 0 .. 7 and the powers of two up to 1024, which bfloat16 holds exactly."""
        positions = self.positions_below(*range(8), *(2**k for k in range(3, 11)))
        return self.pair_responses(self.fresh(self.dtypes[0]), positions)

    def ladder(self, dtype: str) -> Ladder:
        """Responses at positions of every size for one dtype, climbed once."""
        if dtype not in self._ladders:
            self._ladders[dtype] = climb(self, dtype)
        return self._ladders[dtype]

    def stops(self) -> list[str]:
        """Why climbs ended early, where they did."""
        return [ladder.stopped for ladder in self._ladders.values() if ladder.stopped]


@dataclass(frozen=True)
class Ladder:
    """Angles at positions of every size.

    Attributes
    ----------
    responses : PairResponses
        At all positions that were reached.
    errors : array (positions, pairs)
        Angle errors in radians, in (-pi, pi].
    stopped : str or None
        Why the climb ended before `LIMIT`, if it did.
    """

    responses: PairResponses
    errors: Floats
    stopped: str | None


def rungs(served: int, limit: int, quick: bool) -> Iterator[Ints]:
    """Positions octave by octave, each rung `_RUNG` of them in runs of four, sorted.

    Every rung holds 2^k - 2 .. 2^k + 1: the positions at which tables, dtypes and caches end. One
    rung ends with the last position below ``served``, and one with the last below ``limit``.
    """
    rng = np.random.default_rng(0)
    size = _RUNG // 4 if quick else _RUNG
    start = min(size, served)
    yield np.minimum(np.arange(size), start - 1)
    while start < limit:
        end = served if start < served else limit
        top = min(1 << start.bit_length(), end)
        starts = rng.integers(start, max(top - 4, start + 1), size // 4 - 1)
        starts[-1] = top - 4 if top == end else starts[-1]
        runs = np.sort(np.append(starts, start - 2))[:, None] + np.arange(4)
        yield np.clip(runs.ravel(), 0, end - 1)
        start = top


def climb(context: Context, dtype: str) -> Ladder:
    """Probe ever larger positions.

    Below ``context.max_position`` nothing stops the climb. Beyond it, only the reach of the target
    is measured, and the climb ends where its angles are no longer to be trusted, where it raises,
    or where its memory grows with the position, as a table does.
    """
    probe = context.fresh(dtype)
    end = context.target.max_position or LIMIT
    if context.target.positions == "arange":
        end = context.max_position  # a position costs a sequence of its length
    collected: list[PairResponses] = []
    errors: list[Floats] = []
    stopped: str | None = None
    peak = peak_memory()
    for positions in rungs(context.max_position, min(end, LIMIT), context.quick):
        beyond = int(positions[-1]) >= context.max_position
        try:
            responses = context.pair_responses(probe, positions)
        except TargetMisbehaved as problem:
            if not beyond:
                raise
            stopped = f"beyond position {positions[0]:,} it {problem}"
            break
        collected.append(responses)
        errors.append(angle_errors(responses, *context.cos_sin(context.everywhere(positions))))
        grown, peak = peak_memory() - peak, peak_memory()
        if beyond and np.abs(errors[-1]).max(initial=0.0) > trust(context, dtype):
            break
        if grown > TABLE_GROWTH and int(positions[-1]) > 2**14:
            stopped = f"memory grows with the position: not probed beyond {positions[-1]:,}"
            if beyond:
                break
    return Ladder(
        PairResponses(
            np.concatenate([r.positions for r in collected]),
            np.concatenate([r.matrix for r in collected]),
        ),
        np.concatenate(errors),
        stopped,
    )


def trust(context: Context, dtype: str) -> float:
    """Angle error, radians, that is still trusted: `tolerances.TRUST`, and what rounding hides."""
    if dtype not in tolerances.NARROW:
        return tolerances.TRUST
    return tolerances.TRUST + 2 * tolerances.component(dtype)


def worst(
    deviation: Floats,
    tolerance: npt.ArrayLike,
    unit: str,
    where: Callable[[tuple[int, ...]], dict[str, object]] = lambda index: {},
    message: str = "",
) -> Outcome:
    """The entry of ``deviation`` that uses most of its tolerance; NaN is worse than anything.

    ``where(index)`` names the place of that entry.
    """
    size = np.abs(deviation)
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), size.shape)
    if not size.size:
        raise NotRun("no position that this target serves is left to check")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size == 0, 0.0, size / allowed)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    flat = int(np.argmax(np.where(ratio == ratio.max(), np.nan_to_num(size, nan=np.inf), -1.0)))
    index = tuple(int(i) for i in np.unravel_index(flat, size.shape))
    return Outcome(float(size[index]), float(allowed[index]), unit, where(index), message)


def peak_memory() -> int:
    """Largest resident size so far, bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
