"""What the checks share: fresh probes, the measured operator, pair responses, the oracle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.layouts import input_lanes, output_lanes, put_pairs, rotated_lanes, take_pairs
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.probe import Floats, Ints, Probe, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome
from rotary_spec_conformance.target import Target

OPERATOR_POSITIONS = np.asarray([0, 1, 2, 3, 5, 7])
LIMIT = 2**31
"""Positions are probed below this, where int32 ends."""

TABLE_GROWTH = 48 * 2**20  # bytes of new peak memory in one rung that say: a table grows here
_RUNG = 32  # positions per rung, in runs of four: one shape for every call


@dataclass(frozen=True)
class PairResponses:
    """What the pairs do at some positions, read from two one-hot inputs per pair.

    ``matrix[p, i]`` is the 2 x 2 block of pair i at ``positions[p]``.
    """

    positions: Ints
    matrix: npt.NDArray[np.float64]

    @property
    def angles(self) -> Floats:
        """Angle of the closest rotation, radians in (-pi, pi], shape (positions, pairs)."""
        m = self.matrix
        angle: Floats = np.arctan2(m[..., 1, 0] - m[..., 0, 1], m[..., 0, 0] + m[..., 1, 1])
        return angle

    @property
    def magnitudes(self) -> Floats:
        """Root of the determinant's magnitude: A where the block is A times a rotation."""
        with np.errstate(invalid="ignore", over="ignore"):
            size: Floats = np.sqrt(np.abs(np.linalg.det(self.matrix)))
        return size


def pair_responses(
    probe: Probe,
    inputs: Sequence[tuple[int, int]],
    outputs: Sequence[tuple[int, int]],
    positions: npt.ArrayLike,
) -> PairResponses:
    """The 2 x 2 blocks of some pairs: all first lanes at once, and all second ones."""
    ids = np.asarray(positions, dtype=np.int64)
    vectors = np.zeros((2, probe.target.head_dim))
    for member in (0, 1):
        vectors[member, [pair[member] for pair in inputs]] = 1.0
    out = probe.responses(vectors, ids)
    rows = np.stack([out[..., [pair[m] for pair in outputs]] for m in (0, 1)], axis=-1)
    return PairResponses(ids, np.moveaxis(rows, 0, -1))


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

    def expected(self, x: Floats, positions: Ints) -> Floats:
        """What the spec says, in float64; positions (seq,) or (batch, seq)."""
        ids = positions if positions.ndim == 1 else positions[:, None, :]
        return np.asarray(rs.rotate(x, ids, self.spec))

    def bound(self, x: Floats, positions: Ints, dtype: str) -> Floats:
        """Tolerance of every output component for input ``x``; see `tolerances`."""
        spec, u = self.spec, tolerances.unit_roundoff(dtype)
        ids = positions if positions.ndim == 1 else positions[:, None, :]
        magnitude = rs.attention_factor(spec)
        angle = tolerances.float32_angle(spec, ids.reshape(-1)).reshape(*ids.shape, -1)
        first, second = take_pairs(np.abs(x), spec, np)
        size = magnitude * (first + second) * (5 * u + angle)
        out = np.zeros_like(x)
        out[..., rotated_lanes(spec)] = put_pairs(size, size, spec, np)
        return out

    # Measurements -------------------------------------------------------------------------------

    @cached_property
    def operator(self) -> Floats:
        """The whole matrix at `OPERATOR_POSITIONS`, shape (positions, head_dim, head_dim)."""
        dtype = self.dtypes[0]
        positions = self.positions_below(*OPERATOR_POSITIONS)
        columns = self.fresh(dtype).responses(np.eye(self.target.head_dim), positions)
        return np.moveaxis(columns, 0, -1)

    def pair_responses(self, probe: Probe, positions: npt.ArrayLike) -> PairResponses:
        """The 2 x 2 blocks of the spec's pairs."""
        inputs = list(zip(*input_lanes(self.spec), strict=True))
        outputs = list(zip(*output_lanes(self.spec), strict=True))
        return pair_responses(probe, inputs, outputs, positions)

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
        errors.append(angle_errors(context.spec, responses))
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


def angle_errors(spec: rs.RotarySpec, responses: PairResponses) -> Floats:
    """Measured angles minus the spec's, radians, wrapped into (-pi, pi]."""
    cos, sin = rs.cos_sin(responses.positions, spec, dtype=np.float64)
    measured = responses.angles
    wrapped: Floats = np.arctan2(
        np.sin(measured) * cos - np.cos(measured) * sin,
        np.cos(measured) * cos + np.sin(measured) * sin,
    )
    return wrapped


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
