"""Where every tolerance comes from. All are derived per pair, none is tuned.

Notation: u the unit roundoff of the arithmetic, A the magnitude, (a, b) the components of a pair.

*Exact.* cos and sin are each within 2u of the true values (a library's error and one rounding), a
product and a sum round once each: |error| <= A (|a| + |b|) 4u. Storing the result rounds once
more, u_out |y|.

*Float32 angles.* m * theta_i in float32 carries the rounding of theta_i, of the product and of the
reduction, 3u; and ``pow`` amplifies the rounding of its exponent 2i/d by ln(base), twice over for
implementations that take ``exp(-2i/d * ln(base))``: |error of the angle| <= m theta_i u
(3 + 2 ln(base) 2i/d), with theta_i before scaling, because schedules scale afterwards. A pair of
one axis has m of that axis; ln(base) 2i/d is -ln(theta_i) then too, wherever its index starts anew.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec import Default, RotarySpec

Floats = npt.NDArray[np.float64]

UNIT_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}

SPACING_OF_SUBNORMALS = {"float16": 2.0**-24, "bfloat16": 2.0**-133}
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
    """Bound on the angle error of float32 angles, radians, shape (..., pairs).

    ``positions`` are of shape (...), or (axes, ...) for a spec with sections.
    """
    m = np.abs(np.asarray(positions, dtype=np.float64))
    if spec.axis_of_pair is None:
        by_pair = m[..., None]
    else:
        by_pair = np.moveaxis(m, 0, -1)[..., list(spec.axis_of_pair)]
    bound: Floats = by_pair * _angle_per_position(spec)
    return bound


@lru_cache(maxsize=64)
def _angle_per_position(spec: RotarySpec) -> Floats:
    """`float32_angle` at position 1, shape (pairs,)."""
    unscaled = rs.frequencies(replace(spec, schedule=Default()))
    bracket = 3 + 2 * np.abs(np.log(unscaled))
    scaled = np.maximum(unscaled, rs.frequencies(spec))  # explicit ones know no base
    bound: Floats = scaled * UNIT_ROUNDOFF["float32"] * bracket
    return bound
