"""YaRN and LongRoPE: the schedules that put a magnitude on cos and sin, besides the frequencies.

A module of their own, imported when the first of them is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar

from rotary_spec.errors import SpecError
from rotary_spec.scaling import check_count, check_factor
from rotary_spec.schedules import TWO_PI, Schedule, decimal_context, paper_frequencies


@dataclass(frozen=True)
class Yarn(Schedule):
    """YaRN: slow pairs are interpolated, fast ones kept, a ramp over the pair index between.

    dim(r) = d ln(L / 2 pi r) / (2 ln base), d = rotary_dim, is the index of the pair that turns r
    times in L positions. From lo = dim(beta_fast) to hi = dim(beta_slow) the share of
    theta_i / factor rises linearly from 0 to 1; theta_i has the rest. With ``truncate``, lo is
    rounded down and hi up; then lo >= 0 and hi <= d - 1, and hi = lo + 0.001 where they are equal.
    Source: arXiv:2309.00071, the YaRN repository, and Hugging Face's ``rope_type: yarn``.

    Parameters
    ----------
    factor : float
        At least 1.
    original_max_position_embeddings : int
        L, in positions.
    beta_fast, beta_slow : float
        Turns in L positions; beta_fast >= beta_slow.
    truncate : bool
        Hugging Face's, vLLM's and SGLang's ``truncate``, MaxText's ``rope_truncate``, Megatron-LM's
        ``correction_range_round_to_int``. gpt-oss never truncates; mlx-lm, bert4torch, DeepSeek's
        code and the YaRN repository always do.
    attention_factor : float or None
        A itself. None: with m(k) = 0.1 k ln(factor) + 1, it is m(mscale) / m(mscale_all_dim) where
        both are given and neither is 0, else m(1).
    mscale, mscale_all_dim : float or None
        DeepSeek's; 0 counts as not given. ``mscale_all_dim`` also makes the softmax scale larger,
        which is outside the rotation: `rotary_spec.hf_softmax_factor`.

    Notes
    -----
    Where libraries differ from Hugging Face, in whose words to say what they do:

    - The upper clamp is d / 2 - 1 in litgpt and levanter. It changes frequencies only if hi lies
      beyond the last pair; `Explicit` says them.
    - ``attn_factor`` multiplies m(1) in vLLM, SGLang and ggml: give the product as
      ``attention_factor``. ggml multiplies by m(1) inside its kernel on top of that.
    - With one of the mscales missing or 0, SGLang and Megatron-LM still take the ratio (m(mscale)
      where ``mscale_all_dim`` is 0), litgpt m of the one that is there: give ``attention_factor``.
    - A is 1 where nothing is given in litgpt and in some of torchtitan's models, and mlx-lm ignores
      ``attention_factor``: give 1, or what they take.
    - DeepSeek-V3's own code uses YaRN only if the model is set up for more than L positions; else
      it is `Default`.
    - The YaRN repository's and SGLang's ``extrapolation_factor`` scales the share that is not
      interpolated; at 1, its default, this is it.
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
        check_factor(self.factor, type(self).__name__)
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
    A = sqrt(1 + ln(factor) / ln(L)). Source: arXiv:2402.13753, microsoft/LongRoPE, and Hugging
    Face's ``rope_type: longrope`` (``su`` in Phi-3's first configs).

    Which length decides differs. Here it is an argument, the length of the whole sequence.
    transformers takes the highest position of the batch at every call; vLLM chooses once, by the
    longest length the model is loaded for, llama.cpp by the length allocated; mlx-lm takes the long
    list always. `at` gives each of these. Phi-3.5-MoE has a magnitude for either list
    (``short_mscale``, ``long_mscale``), which are equal: give it as ``attention_factor``.

    Parameters
    ----------
    short_factor, long_factor : sequence of float
        One per pair.
    original_max_position_embeddings : int
        L, in positions; at least 2.
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
        check_factor(self.factor, type(self).__name__)
        if len(self.short_factor) != len(self.long_factor):
            raise SpecError(
                f"LongRope: short_factor and long_factor must be of one length, got "
                f"{len(self.short_factor)} and {len(self.long_factor)}"
            )
        if self.original_max_position_embeddings < 2:
            raise SpecError("LongRope: original_max_position_embeddings must be at least 2")

    def check_rotary_dim(self, rotary_dim: int) -> None:
        check_count("LongRope", "short_factor and long_factor", self.short_factor, rotary_dim)

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
