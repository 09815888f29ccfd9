"""The schedules that scale the paper's frequencies: one class each, with its formula and source.

A module of their own, imported when the first of them is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rotary_spec.errors import SpecError
from rotary_spec.schedules import TWO_PI, Default, Schedule, decimal_context, paper_frequencies


@dataclass(frozen=True)
class Linear(Schedule):
    """Position interpolation: theta_i / factor (arXiv:2306.15595; ``rope_type: linear``).

    The same rotation elsewhere: positions divided by it (Megatron-LM, rotary-embedding-torch's
    ``interpolate_factor``), ``scale = 1 / factor`` (MLX), ``freq_scale`` (ggml),
    ``condense_ratio`` (litgpt). Transformer Engine divides by it only up to ``factor`` times the
    length of pre-training and by the growth beyond; give that growth as ``factor``.

    Parameters
    ----------
    factor : float
        At least 1: how many times longer the context becomes.
    """

    factor: float
    rope_type: ClassVar[str] = "linear"

    def check(self) -> None:
        check_factor(self.factor, type(self).__name__)

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        return theta / Decimal(self.factor)


@dataclass(frozen=True)
class Llama3(Schedule):
    """Llama 3.1's schedule: long wavelengths are stretched, short ones kept, a ramp between.

    With lambda_i = 2 pi / theta_i and L the original length: theta_i / factor where lambda_i >
    L / low_freq_factor; theta_i where lambda_i < L / high_freq_factor; between the two
    (1 - s) theta_i / factor + s theta_i, s = (L / lambda_i - low) / (high - low). Where low = high
    (Llama 4) there is a step and no ramp.
    Source: Meta's Llama 3.1 code and Hugging Face's ``rope_type: llama3``.

    Others fix parameters: Megatron-LM L = 8192, low = 1 and high = 4, MaxText factor = 8 too. GGUF
    files hold ``rope_freqs``, by which the plain theta_i are to be divided: see `Explicit`.

    Parameters
    ----------
    factor : float
        At least 1.
    low_freq_factor, high_freq_factor : float
        low <= high, in turns over L positions.
    original_max_position_embeddings : int
        L, the length the model was first trained with, in positions.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: ClassVar[str] = "llama3"

    def check(self) -> None:
        check_factor(self.factor, type(self).__name__)
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
    """NTK-aware: the paper's schedule with base * factor^(d / (d - 2)), d = rotary_dim.

    Source: bloc97 (2023), the YaRN repository's ``LlamaNTKScaledRotaryEmbedding`` (``alpha``). It
    has no ``rope_type`` of its own: HunYuan's configs say ``dynamic`` with an ``alpha`` beside it.

    Other names for factor: ``ntk_alpha`` (bert4torch), ``theta_rescale_factor``
    (rotary-embedding-torch), ``base_rescale_factor`` (x-transformers). diffusers' ``ntk_factor``
    has no exponent: it is another base. Qwen 1 takes max(2^ceil(log2(n / L) + 1) - 1, 1) for n
    positions; give that number.

    Parameters
    ----------
    factor : float
        At least 1.
    """

    factor: float
    rope_type: ClassVar[str] = "ntk"

    def check(self) -> None:
        check_factor(self.factor, type(self).__name__)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        return _ntk_frequencies(base, rotary_dim, Decimal(self.factor))


@dataclass(frozen=True)
class DynamicNtk(Schedule):
    """NTK-aware with a base that grows with the sequence (emozilla, 2023; ``rope_type: dynamic``).

    The base is multiplied by (factor * n / M - (factor - 1))^(d / (d - 2)), n = max(seq_len, M),
    d = rotary_dim: the paper's schedule up to M.

    Where n comes from differs. Here it is an argument. transformers takes the highest position of
    the batch and keeps the longest it has seen, until a call is shorter than M; mlx-lm takes the
    length of the call; vLLM fixes n = factor * M when the model is loaded: `at` gives that.

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
        check_factor(self.factor, type(self).__name__)

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
class Proportional(Schedule):
    """p-RoPE: the slowest pairs do not turn at all (Gemma 4; ``rope_type: proportional``).

    theta_i = base^(-2i/rotary_dim) / factor for the first floor(p rotary_dim / 2) pairs, 0 for the
    others. Unlike partial rotary, the exponent and the pairing are those of the whole width: the
    lanes that turn in the half layout are i and i + rotary_dim / 2. Source: transformers, and
    Barbero et al. (arXiv:2410.06205) for the idea.

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
        check_factor(self.factor, type(self).__name__)
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
    It says what no other schedule does: learned frequencies, GGUF's ``rope_freqs``, and every
    variant of YaRN or LongRoPE that is not Hugging Face's.

    Parameters
    ----------
    inv_freq : sequence of float
        One per pair, at least 0.
    """

    inv_freq: tuple[float, ...]
    rope_type: ClassVar[str] = "explicit"
    may_be_zero: ClassVar[tuple[str, ...]] = ("inv_freq",)

    def check_rotary_dim(self, rotary_dim: int) -> None:
        check_count("Explicit", "inv_freq", self.inv_freq, rotary_dim)

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        return [Decimal(theta) for theta in self.inv_freq]


def _ntk_frequencies(base: float, rotary_dim: int, growth: Decimal) -> list[Decimal]:
    if rotary_dim == 2:  # one pair turns by 1 radian, whatever the base
        return paper_frequencies(base, rotary_dim)
    with decimal_context():
        exponent = Decimal(rotary_dim) / (rotary_dim - 2)
        return paper_frequencies(Decimal(base) * growth**exponent, rotary_dim)


def check_count(name: str, field: str, values: tuple[float, ...], rotary_dim: int) -> None:
    """Raise `SpecError` where a schedule does not hold one number per pair."""
    if len(values) != rotary_dim // 2:
        raise SpecError(
            f"{name}: {field} must hold one number per pair, {rotary_dim // 2}; got {len(values)}"
        )


def check_factor(factor: float, name: str) -> None:
    """Raise `SpecError` where a schedule would make the context shorter."""
    if factor < 1:
        raise SpecError(f"{name}: factor must be at least 1, got {factor!r}")
