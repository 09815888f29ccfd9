"""What pairs of lanes do at some positions, read from one-hot inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rotary_spec_conformance.probe import Floats, Places, Probe


@dataclass(frozen=True)
class PairResponses:
    """What the pairs do at some positions, read from two one-hot inputs per pair.

    ``matrix[p, i]`` is the 2 x 2 block of pair i at ``positions[..., p]``.
    """

    positions: Places
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
    *,
    axial: bool = False,
) -> PairResponses:
    """The 2 x 2 blocks of some pairs: all first lanes at once, and all second ones.

    ``positions`` are as for `Probe.__call__`, without rows.
    """
    ids = np.asarray(positions)
    vectors = np.zeros((2, probe.target.head_dim))
    for member in (0, 1):
        vectors[member, [pair[member] for pair in inputs]] = 1.0
    out = probe.responses(vectors, ids, axial=axial)
    rows = np.stack([out[..., [pair[m] for pair in outputs]] for m in (0, 1)], axis=-1)
    return PairResponses(ids, np.moveaxis(rows, 0, -1))


def angle_errors(responses: PairResponses, cos: Floats, sin: Floats) -> Floats:
    """Measured angles minus those of ``cos`` and ``sin``, radians, wrapped into (-pi, pi]."""
    measured = responses.angles
    wrapped: Floats = np.arctan2(
        np.sin(measured) * cos - np.cos(measured) * sin,
        np.cos(measured) * cos + np.sin(measured) * sin,
    )
    return wrapped


def apart(angles: npt.ArrayLike, others: npt.ArrayLike) -> Floats:
    """Distance of angles on the circle, radians in [0, pi]."""
    turn = 2 * np.pi
    distance = np.abs(np.asarray(angles) - np.asarray(others)) % turn
    shorter: Floats = np.minimum(distance, turn - distance)
    return shorter
