"""The schedules that scale the paper's frequencies: one class each, with its formula and source.

A module of their own, imported when the first of them is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar

from rotary_spec.errors import SpecError
from rotary_spec.schedules import TWO_PI, Default, Schedule, decimal_context, paper_frequencies


@dataclass(frozen=True)
class Linear(Schedule):
    """Position interpolation: theta_i / factor (arXiv:2306.15595; ``rope_type: linear``).

    Libraries that divide the positions instead (Megatron, lucidrains' ``interpolate_factor``,
    MLX's ``scale = 1/factor``) describe the same rotation.

    Parameters
    ----------
    factor : float
        At least 1: how many times longer the context becomes.
    """

    factor: float
    rope_type: ClassVar[str] = "linear"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        return theta / Decimal(self.factor)


@dataclass(frozen=True)
class Llama3(Schedule):
    """Llama 3.1's schedule: long wavelengths are stretched, short ones kept, a ramp between.

    With lambda_i = 2 pi / theta_i and L the original length: theta_i / factor where lambda_i >
    L / low_freq_factor; theta_i where lambda_i < L / high_freq_factor; between the two
    (1 - s) theta_i / factor + s theta_i, s = (L / lambda_i - low) / (high - low).
    Source: Meta's Llama 3.1 code and Hugging Face's ``rope_type: llama3``.

    Parameters
    ----------
    factor : float
        At least 1.
    low_freq_factor, high_freq_factor : float
        low <= high.
    original_max_position_embeddings : int
        L, the length the model was first trained with, in positions.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: ClassVar[str] = "llama3"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)
        if self.low_freq_factor > self.high_freq_factor:
            raise SpecError(
                f"Llama3: low_freq_factor must not exceed high_freq_factor, got "
                f"{self.low_freq_factor!r} > {self.high_freq_factor!r}"
            )

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        low, high = Decimal(self.low_freq_factor), Decimal(self.high_freq_factor)
        turns = Decimal(self.original_max_position_embeddings) * theta / TWO_PI  # L / lambda
        if turns < low:
            return theta / Decimal(self.factor)
        if turns > high or low == high:
            return theta
        smooth = (turns - low) / (high - low)
        return (1 - smooth) * theta / Decimal(self.factor) + smooth * theta


@dataclass(frozen=True)
class Ntk(Schedule):
    """NTK-aware: the paper's schedule with base * factor^(d / (d - 2)) (bloc97, 2023).

    ``factor`` is called ``alpha`` in HunYuan's configs and ``theta_rescale_factor`` in
    rotary-embedding-torch. diffusers' ``ntk_factor`` has no exponent: it is another base.
    """

    factor: float
    rope_type: ClassVar[str] = "ntk"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        return _ntk_frequencies(base, rotary_dim, Decimal(self.factor))


@dataclass(frozen=True)
class DynamicNtk(Schedule):
    """NTK-aware with a base that grows with the sequence (emozilla, 2023; ``rope_type: dynamic``).

    The base is multiplied by (factor * n / M - (factor - 1))^(d / (d - 2)), n = max(seq_len, M):
    the paper's schedule up to M. vLLM fixes n = factor * M.

    Parameters
    ----------
    factor : float
        At least 1.
    max_position_embeddings : int
        M, in positions.
    """

    factor: float
    max_position_embeddings: int
    rope_type: ClassVar[str] = "dynamic"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        return _ntk_frequencies(base, rotary_dim, self._growth(seq_len or 0))

    def at(self, seq_len: int) -> Schedule:
        growth = self._growth(seq_len)
        return Default() if growth == 1 else Ntk(factor=float(growth))

    def _growth(self, seq_len: int) -> Decimal:
        """What the base is multiplied by, before the exponent d / (d - 2)."""
        with decimal_context():
            length = max(seq_len, self.max_position_embeddings)
            factor = Decimal(self.factor)
            return factor * length / Decimal(self.max_position_embeddings) - (factor - 1)


@dataclass(frozen=True)
class Yarn(Schedule):
    """YaRN: slow pairs are interpolated, fast ones kept, a ramp over the pair index between.

    dim(r) = d ln(L / 2 pi r) / (2 ln base) is the index of the pair that turns r times in L
    positions. From lo = dim(beta_fast) to hi = dim(beta_slow) the share of theta_i / factor rises
    linearly from 0 to 1. With ``truncate``, lo is rounded down and hi up; then 0 <= lo and
    hi <= d - 1. Source: arXiv:2309.00071 and Hugging Face's ``rope_type: yarn``.

    Parameters
    ----------
    factor : float
        At least 1.
    original_max_position_embeddings : int
        L, in positions.
    beta_fast, beta_slow : float
        Turns in L positions; beta_fast >= beta_slow.
    truncate : bool
        gpt-oss does not truncate.
    attention_factor : float or None
        A. None: the ratio of 0.1 mscale ln(factor) + 1 and 0.1 mscale_all_dim ln(factor) + 1 where
        both are given, else 0.1 ln(factor) + 1. In vLLM, SGLang and ggml an ``attn_factor``
        multiplies that instead of replacing it.
    mscale, mscale_all_dim : float or None
        DeepSeek's. It also multiplies the softmax scale, which is outside the rotation.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    rope_type: ClassVar[str] = "yarn"
    may_be_zero: ClassVar[tuple[str, ...]] = ("mscale", "mscale_all_dim")

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)
        if self.beta_fast < self.beta_slow:
            raise SpecError(
                f"Yarn: beta_fast must not be below beta_slow, got {self.beta_fast!r} < "
                f"{self.beta_slow!r}"
            )

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        with decimal_context():
            lo, hi = self.ramp(base, rotary_dim)
            factor = Decimal(self.factor)
            out = []
            for i, theta in enumerate(paper_frequencies(base, rotary_dim)):
                share = min(max((i - lo) / (hi - lo), Decimal(0)), Decimal(1))
                out.append(theta / factor * share + theta * (1 - share))
            return out

    def ramp(self, base: float, rotary_dim: int) -> tuple[Decimal, Decimal]:
        """Pair indices between which the ramp rises, lo < hi."""
        if base == 1:
            raise SpecError("Yarn: base 1 gives every pair one frequency: there is no ramp")
        with decimal_context():
            length = Decimal(self.original_max_position_embeddings)

            def index(turns: float) -> Decimal:
                return (
                    rotary_dim
                    * (length / (TWO_PI * Decimal(turns))).ln()
                    / (2 * Decimal(base).ln())
                )

            lo, hi = index(self.beta_fast), index(self.beta_slow)
            if self.truncate:
                lo, hi = Decimal(math.floor(lo)), Decimal(math.ceil(hi))
            lo, hi = max(lo, Decimal(0)), min(hi, Decimal(rotary_dim - 1))
            return lo, hi if hi != lo else hi + Decimal("0.001")

    def magnitude(self, seq_len: int | None) -> float:
        if self.attention_factor is not None:
            return self.attention_factor

        def m(scale: float) -> float:
            return 0.1 * scale * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

        if self.mscale and self.mscale_all_dim:
            return m(self.mscale) / m(self.mscale_all_dim)
        return m(1.0)


@dataclass(frozen=True)
class LongRope(Schedule):
    """LongRoPE: a factor of its own for each pair, one list up to L positions, one beyond.

    theta_i / long_factor_i where seq_len > L, else theta_i / short_factor_i; for both,
    A = sqrt(1 + ln(factor) / ln(L)). Source: arXiv:2402.13753 and Hugging Face's
    ``rope_type: longrope``.

    Parameters
    ----------
    short_factor, long_factor : sequence of float
        One per pair.
    original_max_position_embeddings : int
        L, in positions.
    factor : float
        Maximum length over L, for A only.
    attention_factor : float or None
        A where it is given.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    factor: float = 1.0
    attention_factor: float | None = None
    rope_type: ClassVar[str] = "longrope"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)
        if len(self.short_factor) != len(self.long_factor):
            raise SpecError(
                f"LongRope: short_factor and long_factor must be of one length, got "
                f"{len(self.short_factor)} and {len(self.long_factor)}"
            )
        if self.original_max_position_embeddings < 2:
            raise SpecError("LongRope: original_max_position_embeddings must be at least 2")

    def check_rotary_dim(self, rotary_dim: int) -> None:
        _check_count("LongRope", "short_factor and long_factor", self.short_factor, rotary_dim)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        factors = self._factors(seq_len or 0)
        with decimal_context():
            return [
                theta / Decimal(factor)
                for theta, factor in zip(paper_frequencies(base, rotary_dim), factors, strict=True)
            ]

    def at(self, seq_len: int) -> Schedule:
        factors = self._factors(seq_len)
        return replace(self, short_factor=factors, long_factor=factors)

    def _factors(self, seq_len: int) -> tuple[float, ...]:
        long = seq_len > self.original_max_position_embeddings
        return self.long_factor if long else self.short_factor

    def magnitude(self, seq_len: int | None) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.factor == 1:
            return 1.0
        length = self.original_max_position_embeddings
        return math.sqrt(1 + math.log(self.factor) / math.log(length))


@dataclass(frozen=True)
class Proportional(Schedule):
    """p-RoPE: the slowest pairs do not turn at all (Gemma 3n and 4; ``rope_type: proportional``).

    theta_i = base^(-2i/rotary_dim) / factor for the first floor(p rotary_dim / 2) pairs, 0 for the
    others. Unlike partial rotary, the exponent and the pairing are those of the whole width: the
    lanes that turn in the half layout are i and i + rotary_dim / 2.

    Parameters
    ----------
    partial_rotary_factor : float
        p, above 0 and at most 1.
    factor : float
        At least 1.
    """

    partial_rotary_factor: float
    factor: float = 1.0
    rope_type: ClassVar[str] = "proportional"

    def check(self) -> None:
        _check_factor(self.factor, type(self).__name__)
        if self.partial_rotary_factor > 1:
            raise SpecError(
                f"Proportional: partial_rotary_factor must be at most 1, got "
                f"{self.partial_rotary_factor!r}"
            )

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        turning = int(self.partial_rotary_factor * rotary_dim // 2)
        with decimal_context():
            factor = Decimal(self.factor)
            return [
                theta / factor if i < turning else Decimal(0)
                for i, theta in enumerate(paper_frequencies(base, rotary_dim))
            ]


@dataclass(frozen=True)
class Explicit(Schedule):
    """Frequencies as given, radians per position, one per pair; the base has no part in them.

    Their exact binary values are taken: pass a checkpoint's float32 ``inv_freq`` to keep its own.
    """

    inv_freq: tuple[float, ...]
    rope_type: ClassVar[str] = "explicit"
    may_be_zero: ClassVar[tuple[str, ...]] = ("inv_freq",)

    def check_rotary_dim(self, rotary_dim: int) -> None:
        _check_count("Explicit", "inv_freq", self.inv_freq, rotary_dim)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        return [Decimal(theta) for theta in self.inv_freq]


def _ntk_frequencies(base: float, rotary_dim: int, growth: Decimal) -> list[Decimal]:
    if rotary_dim == 2:  # one pair turns by 1 radian, whatever the base
        return paper_frequencies(base, rotary_dim)
    with decimal_context():
        exponent = Decimal(rotary_dim) / (rotary_dim - 2)
        return paper_frequencies(Decimal(base) * growth**exponent, rotary_dim)


def _check_count(name: str, field: str, values: tuple[float, ...], rotary_dim: int) -> None:
    if len(values) != rotary_dim // 2:
        raise SpecError(
            f"{name}: {field} must hold one number per pair, {rotary_dim // 2}; got {len(values)}"
        )


def _check_factor(factor: float, name: str) -> None:
    if factor < 1:
        raise SpecError(f"{name}: factor must be at least 1, got {factor!r}")
