"""Frequencies and angles to 80 digits, from the formulas of the papers; mpmath computes.

Independent of ``rotary_spec``: a spec is the JSON object of the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import mpmath

from rotary_spec_conformance.vectors.geometry import pairs_of

DIGITS = 80
UNIT = 200
"""Cosines and sines are integers in units of 2^-UNIT."""


def frequencies(spec: Mapping[str, Any], seq_len: int | None) -> list[Any]:
    """Theta of every pair, radians per position, as mpmath numbers."""
    pairs = pairs_of(spec)
    with mpmath.workdps(DIGITS):
        tables = {
            width: scheduled(spec["schedule"], mpmath.mpf(spec["base"]), width, seq_len)
            for width in {pair.width for pair in pairs}
        }
        return [tables[pair.width][pair.index] for pair in pairs]


def paper(base: Any, dim: int) -> list[Any]:
    """base^(-2i/dim), RoFormer Eq. 15."""
    return [mpmath.power(base, -mpmath.mpf(2 * i) / dim) for i in range(dim // 2)]


def scheduled(schedule: Mapping[str, Any], base: Any, dim: int, seq_len: int | None) -> list[Any]:
    """The frequencies of a schedule over ``dim`` lanes, in the working precision of mpmath."""
    kind, length = schedule["rope_type"], seq_len or 0
    plain = paper(base, dim)
    factor = mpmath.mpf(schedule.get("factor") or 1)
    if kind == "default":
        return plain
    if kind == "linear":
        return [theta / factor for theta in plain]
    if kind == "llama3":
        return [_llama3(theta, schedule, factor) for theta in plain]
    if kind in ("ntk", "dynamic"):
        if kind == "dynamic":
            longest = schedule["max_position_embeddings"]
            factor = factor * max(length, longest) / longest - (factor - 1)
        return plain if dim == 2 else paper(base * factor ** (mpmath.mpf(dim) / (dim - 2)), dim)
    if kind == "yarn":
        return _yarn(plain, schedule, factor, base)
    if kind == "longrope":
        long = length > schedule["original_max_position_embeddings"]
        factors = schedule["long_factor" if long else "short_factor"]
        return [theta / mpmath.mpf(f) for theta, f in zip(plain, factors, strict=True)]
    if kind == "proportional":
        turning = mpmath.floor(mpmath.mpf(schedule["partial_rotary_factor"]) * dim / 2)
        return [theta / factor if i < turning else mpmath.mpf(0) for i, theta in enumerate(plain)]
    if kind == "explicit":
        return [mpmath.mpf(theta) for theta in schedule["inv_freq"]]
    raise ValueError(f"no formula for rope_type {kind!r}")


def _llama3(theta: Any, schedule: Mapping[str, Any], factor: Any) -> Any:
    """Meta's apply_scaling, by wavelengths as it is written there."""
    low, high = (mpmath.mpf(schedule[f"{name}_freq_factor"]) for name in ("low", "high"))
    length = mpmath.mpf(schedule["original_max_position_embeddings"])
    wavelength = 2 * mpmath.pi / theta
    if wavelength < length / high:
        return theta
    if wavelength > length / low:
        return theta / factor
    smooth = (length / wavelength - low) / (high - low)
    return (1 - smooth) * theta / factor + smooth * theta


def _yarn(plain: Sequence[Any], schedule: Mapping[str, Any], factor: Any, base: Any) -> list[Any]:
    """arXiv:2309.00071, with the ramp over the pair index of its published code."""
    dim, length = 2 * len(plain), schedule["original_max_position_embeddings"]
    low, high = (
        dim * mpmath.log(length / (2 * mpmath.pi * schedule[beta])) / (2 * mpmath.log(base))
        for beta in ("beta_fast", "beta_slow")
    )
    if schedule["truncate"]:
        low, high = mpmath.floor(low), mpmath.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += mpmath.mpf("0.001")
    out = []
    for i, theta in enumerate(plain):
        kept = 1 - min(max((i - low) / (high - low), 0), 1)
        out.append(theta / factor * (1 - kept) + theta * kept)
    return out


def magnitude(spec: Mapping[str, Any]) -> float:
    """A: the spec's own, or the float64 nearest to what the schedule's formula says."""
    schedule = spec["schedule"]
    for given in (spec["attention_factor"], schedule.get("attention_factor")):
        if given is not None:
            return float(given)
    with mpmath.workdps(DIGITS):
        growth = mpmath.log(schedule.get("factor") or 1)
        if schedule["rope_type"] == "longrope":
            length = schedule["original_max_position_embeddings"]
            return float(mpmath.sqrt(1 + growth / mpmath.log(length)))
        if schedule["rope_type"] == "yarn":
            scale, all_dim = schedule["mscale"], schedule["mscale_all_dim"]
            tenth = mpmath.mpf(1) / 10
            if scale and all_dim:
                numerator, denominator = (tenth * m * growth + 1 for m in (scale, all_dim))
                return float(numerator / denominator)
            return float(tenth * growth + 1)
    return 1.0


def turns_of(theta: Any) -> int:
    """F = round(theta / 2 pi * 2^64), ties to even; not reduced."""
    with mpmath.workdps(DIGITS):
        return int(mpmath.nint(theta / (2 * mpmath.pi) * 2**64))


def cos_sin(position: Fraction, theta: Any) -> tuple[int, int]:
    """Cos and sin of position * theta, in units of 2^-UNIT."""
    with mpmath.workdps(DIGITS):
        angle = mpmath.mpf(position.numerator) / position.denominator * theta
        cos, sin = (
            int(mpmath.nint(mpmath.ldexp(f(angle), UNIT))) for f in (mpmath.cos, mpmath.sin)
        )
        return cos, sin
