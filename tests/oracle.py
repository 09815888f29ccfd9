"""What is right, written from the paper a second time: nothing of ``rotary_spec`` computes here.

Frequencies come from mpmath, as those of the golden vectors do. An angle m theta_i is reduced
modulo one turn in integers of 192 bits and rounded to float64 once, so that cos and sin are good to
1e-15 at every position; ``test_exactness`` holds that against mpmath. A `RotarySpec` is only read,
field by field.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import mpmath
import numpy as np

from rotary_spec import RotarySpec
from rotary_spec_conformance.vectors import exact

BITS = 192
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST_NORMAL = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-14,
    "bfloat16": 2.0**-126,
}


def paper_thetas(base: float, dim: int) -> list[Any]:
    """theta_i = base^(-2i/dim), Eq. 15, to 80 digits."""
    with mpmath.workdps(exact.DIGITS):
        return exact.paper(mpmath.mpf(base), dim)


@cache
def thetas(spec: RotarySpec) -> list[Any]:
    """The spec's frequencies by the formulas that the golden vectors are computed from."""
    return exact.frequencies(spec.to_dict(), None)


def axis_and_rank(sections: Any) -> list[tuple[int, int]]:
    """Axis of each pair, and its place among the pairs of that axis."""
    sizes, n = sections.sizes, len(sections.sizes)
    axes = [0] * sum(sizes)
    if sections.order == "interleaved":  # Qwen3-VL: freqs_t[slice(a, 3 * s_a, 3)] = freqs_a
        for axis in range(1, n):
            for i in range(axis, n * sizes[axis], n):
                axes[i] = axis
    elif sections.order == "spatial_first":  # Ernie: stack(h, w) flattened, then t
        spatial = sum(sizes) - sizes[0]
        axes[:spatial] = [1 + i % (n - 1) for i in range(spatial)]
    else:
        axes = [axis for axis in range(n) for _ in range(sizes[axis])]
    return [(axis, axes[:i].count(axis)) for i, axis in enumerate(axes)]


@cache
def _units(spec: RotarySpec) -> list[int]:
    """The spec's frequencies in units of 2^-192 turn per position."""
    with mpmath.workdps(120):
        return [int(mpmath.nint(t / (2 * mpmath.pi) * 2**BITS)) for t in thetas(spec)]


def angles(positions: Any, spec: RotarySpec) -> Any:
    """m theta_i modulo one turn, in (-pi, pi], of shape (..., pairs)."""
    given = np.vectorize(Fraction, otypes=[object])(np.asarray(positions, dtype=object))
    m = given[..., None]
    if spec.sections is not None:
        m = np.moveaxis(given, 0, -1)[..., [axis for axis, _ in axis_and_rank(spec.sections)]]
    turn = 2**BITS
    phase = np.vectorize(round, otypes=[object])(m * np.asarray(_units(spec), dtype=object)) % turn
    signed = np.where(phase > turn // 2, phase - turn, phase)
    return 2 * np.pi * (signed / turn).astype(np.float64)  # int / int is rounded correctly


def magnitude(spec: RotarySpec) -> float:
    return 1.0 if spec.attention_factor is None else spec.attention_factor


def cos_sin(positions: Any, spec: RotarySpec) -> tuple[Any, Any]:
    """A cos and A sin of the spec's angles, float64."""
    angle = angles(positions, spec)
    scale = magnitude(spec)
    return scale * np.cos(angle), (-scale if spec.inverse else scale) * np.sin(angle)


def lanes(spec: RotarySpec, pair: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where pair i is read, and where it is written: (first, second) each."""

    def place(layout: str) -> tuple[int, int]:
        if spec.sections is not None and spec.sections.pairing == "within" and layout == "half":
            axis, rank = axis_and_rank(spec.sections)[pair]
            start = spec.rotary_start + 2 * sum(spec.sections.sizes[:axis])
            return start + rank, start + rank + spec.sections.sizes[axis]
        if layout == "interleaved":
            return spec.rotary_start + 2 * pair, spec.rotary_start + 2 * pair + 1
        return spec.rotary_start + pair, spec.rotary_start + pair + spec.rotary_dim // 2

    return place(spec.layout), place(spec.output_layout or spec.layout)


def rotate(x: Any, positions: Any, spec: RotarySpec) -> Any:
    """Eq. 13 pair by pair in float64; the sequence axis is the last but one."""
    x = np.asarray(x, dtype=np.float64)
    y = x.copy()
    cos, sin = cos_sin(positions, spec)
    for i in range(spec.rotary_dim // 2):
        (a, b), (first, second) = lanes(spec, i)
        y[..., first] = cos[..., i] * x[..., a] - sin[..., i] * x[..., b]
        y[..., second] = sin[..., i] * x[..., a] + cos[..., i] * x[..., b]
    return y


def rotation_matrix(positions: Any, spec: RotarySpec) -> Any:
    """Eq. 15, one 2x2 block per pair, ones where nothing rotates."""
    cos, sin = cos_sin(positions, spec)
    matrix = np.zeros((*cos.shape[:-1], spec.head_dim, spec.head_dim))
    rotated = range(spec.rotary_start, spec.rotary_start + spec.rotary_dim)
    for lane in set(range(spec.head_dim)) - set(rotated):
        matrix[..., lane, lane] = 1.0
    for i in range(spec.rotary_dim // 2):
        (a, b), (first, second) = lanes(spec, i)
        matrix[..., first, a], matrix[..., first, b] = cos[..., i], -sin[..., i]
        matrix[..., second, a], matrix[..., second, b] = sin[..., i], cos[..., i]
    return matrix


def weights(x: Any, spec: RotarySpec) -> Any:
    """A (|a| + |b|) on both output lanes of each pair, and 0 on the lanes that pass through.

    Every error bound of a rotation is a multiple of it.
    """
    x = np.abs(np.asarray(x, dtype=np.float64))
    bound = np.zeros_like(x)
    for i in range(spec.rotary_dim // 2):
        (a, b), (first, second) = lanes(spec, i)
        bound[..., first] = bound[..., second] = magnitude(spec) * (x[..., a] + x[..., b])
    return bound


def table_error(positions: Any, spec: RotarySpec, arithmetic: str) -> Any:
    """How far cos and sin may be off, of the shape of ``positions``.

    The phase is off by m 2^-65 turn. Float32: 1 ulp below 1, and two roundings where a magnitude
    other than 1 is multiplied in. Float64: three roundings of an angle of at most pi/4, one ulp of
    the library's cos, the same two for the magnitude; 5 u.
    """
    m = np.abs(np.asarray(positions).astype(np.float64))
    m = m if spec.sections is None else m.max(axis=0)
    u = UNIT_ROUNDOFF[arithmetic]
    rounding = (1 + 2 * (magnitude(spec) != 1.0)) * u if arithmetic == "float32" else 5 * u
    return magnitude(spec) * (2 * np.pi * m * 2.0**-65 + rounding)


def tolerance(x: Any, positions: Any, spec: RotarySpec, arithmetic: str, output: str) -> Any:
    """How far each element of a rotation of ``x`` may be off.

    The table's error, u for each product and u for the sum, which makes 4 u (|a| + |b|) in
    float32; and half an ulp of the output dtype where that is narrower.
    """
    u = UNIT_ROUNDOFF[arithmetic]
    table = table_error(positions, spec, arithmetic)[..., None] / magnitude(spec)
    # 1e-15 is the oracle's own error; the last term stands for the second order in u.
    bound = (table + 1e-15 + 2 * u * (1 + 4 * u)) * weights(x, spec)
    if output == arithmetic:
        return bound
    largest = np.abs(rotate(x, positions, spec)) + bound
    half_ulp = UNIT_ROUNDOFF[output] * np.maximum(largest, SMALLEST_NORMAL[output])
    return bound + np.where(weights(x, spec) > 0, half_ulp, 0.0)
