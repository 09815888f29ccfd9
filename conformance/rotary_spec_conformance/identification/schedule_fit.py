"""Which schedules explain measured frequencies: the simplest first, then the others that do.

Every proposal is tested on all pairs against the measurement's own uncertainty. Round parameters
are proposed only where they pass that test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

import rotary_spec as rs
from rotary_spec_conformance.probe import Floats
from rotary_spec_conformance.tolerances import UNIT_ROUNDOFF

_LENGTHS = tuple(2**k for k in range(8, 21))
_SPELLINGS = 3
"""At most so many parameters of one schedule are named that give the same frequencies."""

_BASES = (10_000.0, 500_000.0, 1_000_000.0)


@dataclass(frozen=True)
class Fit:
    """A base and a schedule that explain the frequencies of ``rotary_dim // 2`` pairs."""

    base: float
    schedule: rs.Schedule


@dataclass(frozen=True)
class Measured:
    """Frequencies in pair order, with the uncertainty of each.

    Attributes
    ----------
    theta, uncertainty : arrays (pairs,)
        Radians per position, not negative.
    rotary_dim : int
    exact : bool
        Whether a schedule must meet them within the measurement alone, or as float32 code may.
    """

    theta: Floats
    uncertainty: Floats
    rotary_dim: int
    exact: bool = False

    @property
    def exponent(self) -> Floats:
        """2i / rotary_dim of every pair."""
        return 2 * np.arange(len(self.theta)) / self.rotary_dim

    def tolerance(self, base: float) -> Floats:
        """The measurement, and what float32 code may do to a frequency, recurrences included."""
        if self.exact:
            measurement: Floats = 2 * self.uncertainty + 1e-15 * self.theta
            return measurement
        u = UNIT_ROUNDOFF["float32"]
        bracket = 3 + 2 * abs(np.log(base)) * self.exponent + 2 * np.arange(len(self.theta))
        unscaled = np.maximum(base**-self.exponent, self.theta)
        bound: Floats = unscaled * u * bracket + 2 * self.uncertainty
        return bound

    def near(self, expected: Floats, base: float) -> bool:
        """Whether every pair has the expected frequency, within `tolerance`."""
        return bool(np.all(np.abs(self.theta - expected) <= self.tolerance(base)))

    def explained_by(self, base: float, schedule: rs.Schedule) -> bool:
        """Whether every pair has the schedule's frequency, within `tolerance`."""
        if not (np.isfinite(base) and 0 < base < 1e30):
            return False
        try:
            expected = rs.frequencies(rs.RotarySpec(self.rotary_dim, base=base, schedule=schedule))
        except rs.SpecError:
            return False
        return self.near(expected, base)


def fits(measured: Measured) -> list[Fit]:
    """Everything that explains the frequencies, the simplest first; never empty.

    Where schedules meet them within the measurement alone, only those count; otherwise those that
    float32 code could have rounded to them.
    """
    found: list[Fit] = []
    if np.count_nonzero(measured.theta) > 3:  # fewer are met by a base of enough digits
        found = _found(replace(measured, exact=True))
    found = found or _found(measured)
    explicit = rs.Explicit(tuple(float(t) for t in measured.theta))
    return found or [Fit(10_000.0, explicit)]


def _found(measured: Measured) -> list[Fit]:
    found: list[Fit] = []
    for propose in (_default, _ntk, _linear, _proportional, _llama3, _yarn):
        for fit in propose(measured):
            if fit not in found:
                found.append(fit)
    if len(found) > 1 and isinstance(found[1].schedule, rs.Ntk) and _digits(found[0].base) > 3:
        found[0], found[1] = found[1], found[0]  # 10000 and a factor of 4, rather than 40889.98
    return found


def _default(measured: Measured) -> Iterator[Fit]:
    if len(measured.theta) == 1:
        if measured.explained_by(10_000.0, rs.Default()):
            yield Fit(10_000.0, rs.Default())
        return
    base = _base_of(measured, measured.theta, len(measured.theta))
    nice = _rounded(base, lambda b: measured.near(b**-measured.exponent, b))
    if nice is not None:
        yield Fit(nice, rs.Default())


def _ntk(measured: Measured) -> Iterator[Fit]:
    """Another base is the same as the old one with an NTK factor; named where that is round."""
    dim = measured.rotary_dim
    for fit in _default(measured):
        for base in _BASES:
            if dim <= 2 or fit.base <= base * 1.01:
                continue
            factor = _rounded(
                (fit.base / base) ** ((dim - 2) / dim),
                partial(_ntk_fits, measured, base),
            )
            if factor is not None and factor >= 1 and _digits(factor) <= 3:
                yield Fit(base, rs.Ntk(factor))


def _ntk_fits(measured: Measured, base: float, factor: float) -> bool:
    grown = base * factor ** (measured.rotary_dim / (measured.rotary_dim - 2))
    return measured.near(grown**-measured.exponent, grown)


def _linear(measured: Measured) -> Iterator[Fit]:
    if not 0 < measured.theta[0] < 0.999:
        return
    factor = float(1 / measured.theta[0])
    base = _base_of(measured, measured.theta * factor, len(measured.theta))
    nice = _rounded(factor, lambda f: measured.near(base**-measured.exponent / f, base)) or factor
    round_base = _rounded(base, lambda b: measured.near(b**-measured.exponent / nice, b))
    if round_base is not None:
        yield Fit(round_base, rs.Linear(nice))


def _proportional(measured: Measured) -> Iterator[Fit]:
    """The first pairs turn as the paper says, perhaps scaled; the others not at all."""
    count = len(measured.theta)
    turning = int(np.count_nonzero(measured.theta))
    if not 1 < turning < count or np.any(measured.theta[turning:]):
        return
    factor = float(1 / measured.theta[0])
    nice = _rounded(factor, lambda f: abs(f / factor - 1) < 1e-6) or factor
    base = _base_of(measured, measured.theta * factor, turning)
    schedule = rs.Proportional(turning / count, max(nice, 1.0))
    round_base = _rounded(base, lambda b: measured.explained_by(b, schedule))
    if round_base is not None:
        yield Fit(round_base, schedule)


def _llama3(measured: Measured) -> Iterator[Fit]:
    """The fast pairs as they were, the slow ones divided, a ramp linear in the frequency."""
    split = _split(measured)
    if split is None:
        return
    base, factor, keep = split
    unscaled = base**-measured.exponent
    inside = (keep > 1e-3) & (keep < 1 - 1e-3)
    if np.count_nonzero(inside) >= 2:
        x, y = unscaled[inside], keep[inside]
        if not np.ptp(x) > 0:
            return
        slope = float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))
        offset = float(np.mean(y) - slope * np.mean(x))
        if not (slope > 0 and offset < 0):
            return
        ratio = 1 - 1 / offset  # high / low; only it and L / low can be told from the ramp
        options = [
            (length, length / (2 * np.pi * slope * (ratio - 1)), ratio) for length in _LENGTHS
        ]
    else:
        options = [(length, 1.0, 4.0) for length in _LENGTHS]
    options.sort(key=lambda option: abs(np.log(option[1])))  # low_freq_factor 1 first
    found = 0
    for length, low, ratio in options:
        low_nice = _nearest(low)
        schedule = rs.Llama3(factor, low_nice, _nearest(low_nice * ratio), length)
        if found < _SPELLINGS and measured.explained_by(base, schedule):
            found += 1
            yield Fit(base, schedule)


def _yarn(measured: Measured) -> Iterator[Fit]:
    """The fast pairs as they were, the slow ones divided, a ramp linear in the index."""
    split = _split(measured)
    if split is None:
        return
    base, factor, _ = split
    for truncate in (True, False):
        schedules = (rs.Yarn(factor, length, truncate=truncate) for length in _LENGTHS)
        good = (s for s in schedules if measured.explained_by(base, s))
        yield from (Fit(base, schedule) for schedule in islice(good, _SPELLINGS))


def _split(measured: Measured) -> tuple[float, float, Floats] | None:
    """Base of the fast pairs, factor of the slow ones, and the share of each pair that is kept.

    None where the frequencies do not look like that.
    """
    theta, count = measured.theta, len(measured.theta)
    if count < 4 or abs(theta[0] - 1) > 1e-4 or np.any(theta <= 0):
        return None
    base = _base_of(measured, theta, 2)
    for known in range(2, count):  # as long as the fast pairs agree, they sharpen the base
        predicted = base ** -measured.exponent[known]
        slack = measured.tolerance(base)[known] + predicted * 3e-5
        if abs(theta[known] - predicted) > slack:
            break
        base = _base_of(measured, theta, known + 1)
    else:
        return None
    kept = np.arange(count) < known

    def explains(b: float) -> bool:
        difference = np.abs(theta - b**-measured.exponent)
        return bool(np.all(difference[kept] <= measured.tolerance(b)[kept]))

    base = _rounded(base, explains) or base
    share = theta / base**-measured.exponent
    factor = float(1 / share[-1])
    if factor < 1.01 or abs(share[-1] / share[-2] - 1) > 1e-4:
        return None
    factor = _rounded(factor, lambda f: abs(f / factor - 1) < 1e-5) or factor
    return base, factor, (share - 1 / factor) / (1 - 1 / factor)


def _base_of(measured: Measured, theta: Floats, count: int) -> float:
    """Base of the first ``count`` pairs, each weighted by how well it tells."""
    index = np.arange(1, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = -np.log(theta[1:count]) / measured.exponent[1:count]
        weight = (theta[1:count] * index / measured.tolerance(1e4)[1:count]) ** 2
    good = np.isfinite(logs) & (weight > 0)
    if not good.any():
        return 10_000.0
    return float(np.exp(np.average(logs[good], weights=weight[good])))


def _rounded(value: float, accept: Callable[[float], bool]) -> float | None:
    """The roundest decimal near ``value`` that is accepted, or ``value``, or None."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits - 1}e}")
        if accept(candidate):
            return candidate
    return value if accept(value) else None


def _nearest(value: float) -> float:
    """``value`` itself, or a number of few digits within a part in 2000 of it."""
    candidate = _rounded(value, lambda v: abs(v / value - 1) < 5e-4)
    return value if candidate is None else candidate


def _digits(value: float) -> int:
    """Significant decimal digits of a number."""
    return len(f"{value:.12g}".replace(".", "").partition("e")[0].strip("0"))
