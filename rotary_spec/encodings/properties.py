"""What an encoding's scores do, measured: the paper's comparison (RoFormer Section 2.2 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rotary_spec.encodings.base import Encoding
from rotary_spec.errors import DtypeError, PositionError, SpecError
from rotary_spec.spec import integer

Floats = npt.NDArray[np.float64]

NOTHING = 2.0**-26
"""Deviations are relative to the largest score. Float64 rounding leaves some d * 2^-53; an effect
is of order 1. The line between them is drawn half-way, at the square root of the unit roundoff."""


@dataclass(frozen=True)
class Properties:
    """What `properties` measured.

    Attributes
    ----------
    encoding : Encoding
    length : int
        The training length L, in positions.
    shift_deviation : float
        Largest change of a score when both tokens move by as much, relative to the largest score.
    ranks : tuple of (int, int)
        How many tokens, each with content of its own, and the rank of their matrix of scores.
    additivity_deviation : float
        Largest |s(x + x', y) - s(x, y) - s(x', y)|, or the same in y, relative to the largest
        score: none where position multiplies the content, as a matrix does; else it adds to it.
    told_apart : int or None
        Keys up to this distance, of the same content, differ in score from keys at 2 L; None where
        the encoding is not defined at 2 L.
    decay : tuple of (int, float)
        A distance r, and the mean score over distances r .. 2 r - 1 where query and key are equal
        before the encoding, divided by that at distance 0. With drawn parameters: before training.
    """

    encoding: Encoding
    length: int
    shift_deviation: float
    ranks: tuple[tuple[int, int], ...]
    additivity_deviation: float
    told_apart: int | None
    decay: tuple[tuple[int, float], ...]

    @property
    def relative(self) -> bool:
        """Whether scores depend on positions through m - n only."""
        return self.shift_deviation <= NOTHING

    @property
    def features(self) -> int | None:
        """How many features of q alone and k alone give the score as phi(q, m)^T phi(k, n).

        That is the rank of the scores of L tokens. None where it grows with the tokens: from L / 2
        to L by more than sqrt(2), half-way between a rank that stays and one that doubles. Then
        linear attention has no use for it. (Sinusoids of m - n add features slowly, up to dim, as
        longer sequences tell their lowest frequencies apart.)
        """
        (_, before), (_, rank) = self.ranks[-2:]
        return rank if rank**2 <= 2 * before**2 else None

    @property
    def multiplies(self) -> bool:
        """Whether the score is bilinear in the contents: position acts as a matrix on them.

        Only then can it act on phi(q) and phi(k) above the line of linear attention and leave the
        denominator, a sum over the same features, as it is (RoFormer Eq. 19).
        """
        return self.additivity_deviation <= NOTHING

    @property
    def beyond(self) -> Literal["undefined", "constant", "continues"]:
        """Beyond L: not defined; the same score at every distance; or distances told apart."""
        if self.told_apart is None:
            return "undefined"
        return "constant" if self.told_apart < self.length else "continues"


def properties(encoding: Encoding, *, length: int = 512, seed: int = 0) -> Properties:
    """Measure an encoding; nothing is asserted, and nothing is known about its class.

    Parameters
    ----------
    encoding : Encoding
    length : int
        The training length L in positions, a multiple of 4, at least 16 and at least 4 dim, which
        a rank takes to show whether it stays; tables of absolute positions must have as many rows.
        Time and memory grow with its square.
    seed : int
        Of the contents, which are drawn from the unit normal distribution.

    Returns
    -------
    Properties

    Raises
    ------
    SpecError
        If ``length`` or ``seed`` is not possible, the encoding ends before ``length``, or its
        parameters make all scores 0 or W_k singular.
    DtypeError
        If ``encoding`` is none.

    Examples
    --------
    >>> from rotary_spec.encodings import Rotary, properties
    >>> found = properties(Rotary(dim=8), length=64)
    >>> found.relative, found.features, found.multiplies, found.beyond
    (True, 8, True, 'continues')
    """
    if not isinstance(encoding, Encoding):
        raise DtypeError(f"encoding must be an Encoding, got {encoding!r}")
    length = integer("length", length)
    least = max(16, 4 * encoding.dim)
    if length < least or length % 4:
        raise SpecError(
            f"length must be a multiple of 4 and at least {least} for dim = {encoding.dim}, "
            f"got {length}"
        )
    if integer("seed", seed) < 0:
        raise SpecError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    x, y, other = rng.standard_normal((3, length, encoding.dim))
    try:
        whole = _scores(encoding, x, y, range(length))
    except PositionError as error:
        raise SpecError(f"the encoding must be defined up to length = {length}: {error}") from error
    largest = float(np.abs(whole).max())
    if not 0 < largest < np.inf:
        raise SpecError(f"the encoding's scores must be finite and not all 0, got {largest}")
    return Properties(
        encoding,
        length,
        shift_deviation=_shift_deviation(encoding, x, y, length) / largest,
        ranks=tuple((n, _rank(whole[:n, :n])) for n in (length // 4, length // 2, length)),
        additivity_deviation=_additivity_deviation(encoding, x, y, other) / largest,
        told_apart=_told_apart(encoding, x[0], y[0], length, largest),
        decay=_decay(encoding, rng.standard_normal((8, 1, encoding.dim)), length),
    )


def _scores(encoding: Encoding, x: Floats, y: Floats, positions: range) -> Floats:
    return np.asarray(encoding.scores(x, y, positions, positions))


def _shift_deviation(encoding: Encoding, x: Floats, y: Floats, length: int) -> float:
    """Over short shifts, half the length, and beyond the length where that is defined."""
    half = length // 2
    x, y = x[:half], y[:half]
    start = _scores(encoding, x, y, range(half))
    deviations = []
    for shift in (1, 7, half, 2 * length):
        try:
            moved = _scores(encoding, x, y, range(shift, shift + half))
        except PositionError:
            continue  # the table ends: `beyond` says so
        deviations.append(float(np.abs(moved - start).max()))
    return max(deviations)


def _rank(scores: Floats) -> int:
    singular = np.linalg.svd(scores, compute_uv=False)
    return int(np.sum(singular > NOTHING * singular[0]))


def _additivity_deviation(encoding: Encoding, x: Floats, y: Floats, other: Floats) -> float:
    positions = range(min(64, len(x)))
    x, y, other = (content[: len(positions)] for content in (x, y, other))

    def of(queries: Floats, keys: Floats) -> Floats:
        return _scores(encoding, queries, keys, positions)

    in_query = of(x + other, y) - of(x, y) - of(other, y)
    in_key = of(x, y + other) - of(x, y) - of(x, other)
    return float(max(np.abs(in_query).max(), np.abs(in_key).max()))


def _told_apart(
    encoding: Encoding, x: Floats, y: Floats, length: int, largest: float
) -> int | None:
    """One query at 2 L and equal keys at every position before it."""
    far = 2 * length
    keys = np.broadcast_to(y, (far + 1, len(y)))
    try:
        scores = np.asarray(encoding.scores(x[None], keys, [far], range(far + 1)))[0, ::-1]
    except PositionError:
        return None
    differs = np.flatnonzero(np.abs(scores - scores[far]) > NOTHING * largest)
    return int(differs[-1]) if len(differs) else 0


def _decay(encoding: Encoding, x: Floats, length: int) -> tuple[tuple[int, float], ...]:
    """Equal tokens at every position, their keys the same vectors as their queries."""
    queries = np.broadcast_to(x, (len(x), length, encoding.dim))
    # W_k y = W_q x: what falls with the distance is then the encoding's doing.
    try:
        turn = np.linalg.solve(encoding.parameter("W_k"), encoding.parameter("W_q"))
    except np.linalg.LinAlgError:
        raise SpecError("W_k must be invertible: decay needs keys that equal queries") from None
    mean = _scores(encoding, queries, queries @ turn.T, range(length)).mean(axis=0)
    by_distance = [float(np.diagonal(mean, -r).mean()) for r in range(length)]
    starts = [2**k for k in range((length // 2).bit_length())]
    return tuple(
        (start, float(np.mean(by_distance[start : min(2 * start, length)])) / by_distance[0])
        for start in starts
        if start < length
    )
