"""Where every tolerance comes from. All are derived per pair, none is tuned.

Notation: u the unit roundoff of the arithmetic, A the magnitude, (a, b) the components of a pair.

*Exact.* cos and sin are each within 2u of the true values (a library's error and one rounding), a
product and a sum round once each: |error| <= A (|a| + |b|) 4u. Storing the result rounds once
more, u_out |y|.

*Float32 angles.* m * theta_i in float32 carries the rounding of theta_i, of the product and of the
reduction, 3u; and ``pow`` amplifies the rounding of its exponent 2i/d by ln(base), twice over for
implementations that take ``exp(-2i/d * ln(base))``: |error of the angle| <= m theta_i u
(3 + 2 ln(base) 2i/d), with theta_i before scaling, because schedules scale afterwards.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec import RotarySpec
from rotary_spec.schedules import paper_frequencies

Floats = npt.NDArray[np.float64]

UNIT_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}

NARROW = ("float16", "bfloat16")
"""The 16-bit dtypes."""

TRUST = 2.0**-8
"""Angle error, in radians, up to which a position is called trustworthy."""


def unit_roundoff(dtype: str) -> float:
    """U of the arithmetic that the spec demands for inputs of a dtype: float32's for float64."""
    return max(UNIT_ROUNDOFF[dtype], UNIT_ROUNDOFF["float32"])


def component(dtype: str, magnitude: float = 1.0) -> float:
    """Bound on each output component of a unit one-hot input, at exact angles."""
    u = unit_roundoff(dtype)
    return magnitude * (4 * u + u)


def float32_angle(spec: RotarySpec, positions: npt.ArrayLike) -> Floats:
    """Bound on the angle error of float32 angles, radians, shape (positions, pairs)."""
    index = np.arange(spec.pairs)
    bracket = 3 + 2 * abs(np.log(spec.base)) * 2 * index / spec.rotary_dim
    unscaled = np.asarray([float(t) for t in paper_frequencies(spec.base, spec.rotary_dim)])
    unscaled = np.maximum(unscaled, rs.frequencies(spec))  # explicit ones know no base
    m = np.abs(np.asarray(positions, dtype=np.float64))[:, None]
    bound: Floats = m * unscaled * UNIT_ROUNDOFF["float32"] * bracket
    return bound
