"""Frequency schedules: how many radians one position turns each pair.

A schedule is a small frozen dataclass with one method, ``frequencies``. Its parameters carry the
names of Hugging Face's ``rope_parameters``, its ``rope_type`` is Hugging Face's too. The formulas
are evaluated in decimal arithmetic of `PRECISION` digits, so that float64 frequencies and 64-bit
fixed-point turns are both rounded once, from the same number.

To add a schedule, subclass `Schedule`; it registers itself under its ``rope_type``.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from decimal import Context, Decimal, localcontext
from numbers import Real
from typing import Any, ClassVar

from rotary_spec.errors import SpecError

PRECISION = 50
"""Decimal digits carried by every schedule: 64-bit turns need 20, the rest is guard."""

TWO_PI = Decimal("6.283185307179586476925286766559005768394338798750211641949889")


def decimal_context() -> AbstractContextManager[Context]:
    """`PRECISION` digits and Python's default rounding, whatever the caller has set."""
    return localcontext(Context(prec=PRECISION))


def positive(name: str, value: object) -> float:
    """``value`` as a finite positive float; `SpecError` names it where it is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SpecError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise SpecError(f"{name} must be finite and positive, got {value!r}")
    return number


def paper_frequencies(base: float, dim: int, count: int | None = None) -> list[Decimal]:
    """theta_i = base^(-2i/dim) for i = 0 .. count-1, in radians per position (RoFormer Eq. 15).

    ``count`` defaults to ``dim // 2``, one frequency per pair.
    """
    with decimal_context():
        b = Decimal(base)
        pairs = dim // 2 if count is None else count
        return [b ** (Decimal(-2 * i) / dim) for i in range(pairs)]


@dataclass(frozen=True)
class Schedule:
    """Base class of the frequency schedules.

    Subclasses are frozen dataclasses that set ``rope_type`` and override `scale`; override
    `attention_factor` where the schedule changes the magnitude, and `check` for its rules.
    """

    rope_type: ClassVar[str] = ""
    registry: ClassVar[dict[str, type[Schedule]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.rope_type:
            Schedule.registry[cls.rope_type] = cls

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = positive(f"{type(self).__name__}: {name}", value)
            if type(value) not in (int, float):  # a NumPy scalar, which JSON does not know
                object.__setattr__(self, name, number)
        self.check()

    def check(self) -> None:
        """Raise `SpecError` where the parameters contradict each other."""

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        """Radians per position of each of the ``rotary_dim // 2`` pairs, to `PRECISION` digits."""
        with decimal_context():
            return [self.scale(theta, seq_len) for theta in paper_frequencies(base, rotary_dim)]

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        """The scheduled frequency of the pair whose unscaled frequency is ``theta``."""
        raise NotImplementedError

    def attention_factor(self, seq_len: int | None) -> float:
        """Magnitude that the schedule puts on cos and sin (logits scale by its square)."""
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        """``{"rope_type": ..., **parameters}``, as in Hugging Face's ``rope_parameters``."""
        return {"rope_type": self.rope_type, **asdict(self)}


@dataclass(frozen=True)
class Default(Schedule):
    """The paper's schedule: theta_i = base^(-2i/rotary_dim) (RoFormer Eq. 15)."""

    rope_type: ClassVar[str] = "default"

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        return theta


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


def _check_factor(factor: float, name: str) -> None:
    if factor < 1:
        raise SpecError(f"{name}: factor must be at least 1, got {factor!r}")


def schedule_from_dict(parameters: dict[str, Any]) -> Schedule:
    """The schedule that ``{"rope_type": ..., **parameters}`` describes.

    Raises
    ------
    SpecError
        If ``rope_type`` is unknown, or a parameter is missing or not the schedule's.
    """
    values = dict(parameters)
    rope_type = values.pop("rope_type", None)
    cls = Schedule.registry.get(rope_type) if isinstance(rope_type, str) else None
    if cls is None:
        raise SpecError(
            f"rope_type {rope_type!r} is not a known schedule; "
            f"known: {', '.join(sorted(Schedule.registry))}"
        )
    try:
        return cls(**values)
    except TypeError as error:
        expected = ", ".join(field.name for field in fields(cls)) or "no parameters"
        raise SpecError(
            f"rope_type {rope_type!r} takes {expected}; got {', '.join(values) or 'none'}"
        ) from error
