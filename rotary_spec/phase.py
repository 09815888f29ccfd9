"""Exact phases: the angle of a pair as a fraction of a turn in 64-bit fixed point.

The frequency of pair i is held as F_i = round(theta_i / 2 pi * 2^64), in turns of 2^-64. The phase
of position m is m * F_i modulo 2^64: the wrap-around of integer arithmetic *is* the reduction
modulo one turn. It is the same 64 bits in every framework, and off by at most |m| * 2^-65 turn,
which for |m| < 2^31 is 3.7e-10 radians, 160 times below a float32 ulp.

A coordinate that is no integer, as in vision, is split: its whole part turns by integers as above,
and the fraction adds fraction * theta_i / 2 pi, which float64 holds within 2^-53 turns (without
float64, 32-bit integers do within 2^-31).

A phase travels as two int32 arrays ``(high, low)``, the top and bottom 32 bits, because not every
framework has 64-bit integers (JAX without x64 has none).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN
from typing import NamedTuple

from rotary_spec._array import Array, Namespace, device_of, has_dtype
from rotary_spec.frequencies import exact_frequencies
from rotary_spec.schedules import TWO_PI, decimal_context
from rotary_spec.spec import RotarySpec

TURN = 2**64
_RADIANS = 1.4629180792671596e-09  # 2 pi / 2^32, one unit of the top word
# The same constant in two pieces: 9 leading bits, so that products with 15-bit numbers are exact
# in float32, and the rest.
_RADIANS_HEAD = 402 * 2.0**-38
_RADIANS_TAIL = _RADIANS - _RADIANS_HEAD


class Phase(NamedTuple):
    """A phase in units of 2^-64 turn: its top and bottom 32 bits, both int32 (two's complement)."""

    high: Array
    low: Array


def turns(spec: RotarySpec, seq_len: int | None = None) -> tuple[int, ...]:
    """F_i = round(theta_i / 2 pi * 2^64) of every pair, as Python integers.

    Below 2^64 where a position turns the pair by less than a whole turn, theta_i < 2 pi.

    >>> from rotary_spec import RotarySpec, turns
    >>> turns(RotarySpec(head_dim=4))
    (2935890503282001226, 29358905032820012)
    """
    with decimal_context():
        return tuple(
            int((theta / TWO_PI * TURN).to_integral_value(rounding=ROUND_HALF_EVEN))
            for theta in exact_frequencies(spec, seq_len)
        )


# Under torch.compile the turns are constants of the graph. This is the mark that
# torch.compiler.assume_constant_result leaves; setting it needs no torch.
turns._dynamo_marked_constant = True  # type: ignore[attr-defined]


def phases(
    positions: Array,
    frequency_turns: Sequence[int],
    xp: Namespace,
    axis_of_pair: Sequence[int] | None = None,
) -> Phase:
    """The phases m * F_i modulo one turn, bit for bit for integer ``positions`` of any shape.

    Parameters
    ----------
    positions : array, shape (...), or (axes, ...) where ``axis_of_pair`` is given
        Integers, or float32 or float64 coordinates.
    frequency_turns : sequence of int
        F_i from `turns`, in units of 2^-64 turn per position.
    xp : array API namespace of ``positions``
    axis_of_pair : sequence of int or None
        Which axis of the positions turns pair i.

    Returns
    -------
    Phase of int32 arrays, shape (..., pairs)
    """
    if axis_of_pair is None:
        m = positions[..., None]
    else:
        index = xp.asarray(list(axis_of_pair), device=device_of(positions))
        m = xp.take(xp.moveaxis(positions, 0, -1), index, axis=-1)
    by_words = _phases_by_int64 if has_dtype(xp, "int64", positions) else _phases_by_limbs
    return by_words(m, frequency_turns, xp)


def _phases_by_int64(m: Array, frequency_turns: Sequence[int], xp: Namespace) -> Phase:
    whole, fraction = _split(m, xp)
    reduced = [f % TURN for f in frequency_turns]
    signed = [f - TURN if f >= TURN // 2 else f for f in reduced]
    factor = xp.asarray(signed, dtype=xp.int64, device=device_of(m))
    product = xp.astype(whole, xp.int64) * factor  # wraps: one turn is 2^64
    if fraction is not None:
        product = product + _fraction_by_int64(fraction, frequency_turns, xp)
    low = product & 0xFFFFFFFF
    return Phase(
        high=xp.astype(product >> 32, xp.int32),
        low=xp.astype(xp.where(low >= 2**31, low - 2**32, low), xp.int32),
    )


def _phases_by_limbs(m: Array, frequency_turns: Sequence[int], xp: Namespace) -> Phase:
    """The same product from 32-bit integers alone; uint32 arithmetic wraps modulo 2^32."""

    def words(shift: int) -> Array:
        values = [f >> shift & 0xFFFFFFFF for f in frequency_turns]
        return xp.asarray(values, dtype=xp.uint32, device=device_of(m))

    whole, fraction = _split(m, xp)
    turn, factor_high, factor_low = words(64), words(32), words(0)
    unsigned = xp.astype(whole, xp.uint32)  # a negative m reads as m + 2^32
    excess = xp.where(whole < 0, factor_low, xp.zeros_like(factor_low))
    high = unsigned * factor_high + _multiply_high(unsigned, factor_low) - excess
    low = unsigned * factor_low
    if fraction is not None:
        k = xp.astype(fraction * 2.0**32, xp.uint32)
        added = k * factor_high + _multiply_high(k, factor_low)
        carry = xp.astype(added < k * factor_high, xp.uint32)
        high = high + k * turn + _multiply_high(k, factor_high) + carry
        low = low + added
        high = high + xp.astype(low < added, xp.uint32)
    return Phase(high=xp.astype(high, xp.int32), low=xp.astype(low, xp.int32))


def _split(m: Array, xp: Namespace) -> tuple[Array, Array | None]:
    """Whole part as integers and, for floating coordinates, the fraction in [0, 1)."""
    if not xp.isdtype(m.dtype, "real floating"):
        return m, None
    integer = xp.int64 if has_dtype(xp, "int64", m) else xp.int32
    whole = xp.floor(m)
    return xp.astype(whole, integer), m - whole


def _fraction_by_int64(fraction: Array, frequency_turns: Sequence[int], xp: Namespace) -> Array:
    device = device_of(fraction)
    if has_dtype(xp, "float64", fraction):
        rate = xp.asarray([f / TURN for f in frequency_turns], dtype=xp.float64, device=device)
        turned = xp.astype(fraction, xp.float64) * rate
        return xp.astype((turned - xp.round(turned)) * 2.0**62, xp.int64) << 2
    k = xp.astype(fraction * 2.0**31, xp.int64)

    def words(values: list[int]) -> Array:
        return k * xp.asarray(values, dtype=xp.int64, device=device)

    low = words([f & 0xFFFFFFFF for f in frequency_turns])
    return (words([f >> 32 for f in frequency_turns]) << 1) + (low >> 31)


def _multiply_high(a: Array, b: Array) -> Array:
    """The top 32 bits of the 64-bit product of two uint32 arrays, by 16-bit halves."""
    a_low, a_high, b_low, b_high = a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16
    middle = a_high * b_low + (a_low * b_low >> 16)
    other = a_low * b_high + (middle & 0xFFFF)
    return a_high * b_high + (middle >> 16) + (other >> 16)


def cos_sin_of(phase: Phase, xp: Namespace) -> tuple[Array, Array]:
    """Cosine and sine of a phase, float64 where the namespace has it, else float32 within 1 ulp.

    The quadrant comes from the top bits; the library's cos and sin see at most an eighth of a
    turn, where they need no range reduction.
    """
    high, low = phase
    quadrant = (((high >> 29) + 1) >> 1) & 3
    remainder = high & 0x3FFFFFFF  # in [0, 2^30), a quarter turn
    remainder = xp.where(remainder >= 2**29, remainder - 2**30, remainder)
    if has_dtype(xp, "float64", high):
        cos, sin = _cos_sin_float64(remainder, low, xp)
    else:
        cos, sin = _cos_sin_float32(remainder, low, xp)
    swapped = (quadrant & 1) == 1
    cos, sin = xp.where(swapped, sin, cos), xp.where(swapped, cos, sin)
    return (
        xp.where((quadrant == 1) | (quadrant == 2), -cos, cos),
        xp.where(quadrant >= 2, -sin, sin),
    )


def table(
    positions: Array,
    frequency_turns: Sequence[int],
    magnitude: float,
    inverse: bool,
    xp: Namespace,
    axis_of_pair: Sequence[int] | None = None,
) -> tuple[Array, Array]:
    """A cos(m theta_i) and A sin(m theta_i), or of -m theta_i, in the dtype of `cos_sin_of`."""
    cos, sin = cos_sin_of(phases(positions, frequency_turns, xp, axis_of_pair), xp)
    return magnitude * cos, (-magnitude if inverse else magnitude) * sin


def _cos_sin_float64(high: Array, low: Array, xp: Namespace) -> tuple[Array, Array]:
    tail = xp.astype(low, xp.float64) * 2.0**-32
    tail = xp.where(low < 0, tail + 1.0, tail)  # the low word counts upwards from the high one
    angle = (xp.astype(high, xp.float64) + tail) * _RADIANS
    return xp.cos(angle), xp.sin(angle)


def _cos_sin_float32(high: Array, low: Array, xp: Namespace) -> tuple[Array, Array]:
    """The angle is summed from products that are exact or small: it is rounded once."""
    coarse = xp.astype(high >> 15, xp.float32) * 2.0**15
    fine = xp.astype(high & 0x7FFF, xp.float32)
    fine = fine + xp.astype((low >> 16) & 0xFFFF, xp.float32) * 2.0**-16
    head = coarse * _RADIANS_HEAD  # exact: 15 bits times 9
    tail = coarse * _RADIANS_TAIL + fine * _RADIANS
    angle = head + tail
    return xp.cos(angle), xp.sin(angle)
