"""Frequency schedules: how many radians one position turns each pair. The scaled ones: `scaling`.

A schedule is a small frozen dataclass that overrides ``scale`` or ``frequencies``. Its parameters
carry the names of Hugging Face's ``rope_parameters``, its ``rope_type`` is Hugging Face's too. The
formulas are evaluated in decimal arithmetic of `PRECISION` digits, so that float64 frequencies and
64-bit fixed-point turns are both rounded once, from the same number.

To add a schedule, subclass `Schedule`; it registers itself under its ``rope_type``.
"""

from __future__ import annotations

import math
import operator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from decimal import Context, Decimal, localcontext
from importlib import import_module
from itertools import accumulate
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


def paper_frequencies(base: float | Decimal, dim: int) -> list[Decimal]:
    """theta_i = base^(-2i/dim), i = 0 .. dim/2 - 1, in radians per position (RoFormer Eq. 15)."""
    with decimal_context():
        # One power and products, 30 times faster than powers; of 50 digits they cost two.
        ratio = Decimal(base) ** (Decimal(-2) / dim)
        return list(accumulate([Decimal(1), *[ratio] * (dim // 2 - 1)], operator.mul))


@dataclass(frozen=True)
class Schedule:
    """Base class of the frequency schedules.

    Subclasses are frozen dataclasses that set ``rope_type`` and override `scale`; override
    `magnitude` where the schedule changes it, and `check` for its rules.
    """

    rope_type: ClassVar[str] = ""
    may_be_zero: ClassVar[tuple[str, ...]] = ()
    registry: ClassVar[dict[str, type[Schedule]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.rope_type:
            Schedule.registry[cls.rope_type] = cls

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if hasattr(value, "tolist"):  # NumPy numbers and arrays, by their exact values
                value = value.tolist()
            if isinstance(value, list):
                value = tuple(value)
            absent = value is None and field.default is None
            if not absent and not (isinstance(value, bool) and isinstance(field.default, bool)):
                several = isinstance(value, tuple)
                numbers = tuple(
                    self._number(field.name, v) for v in (value if several else [value])
                )
                value = numbers if several else numbers[0]
            object.__setattr__(self, field.name, value)
        self.check()

    def _number(self, name: str, value: object) -> float:
        """``value`` as an int or a float, checked; `SpecError` names it where it is neither."""
        if name in self.may_be_zero and not isinstance(value, bool) and value == 0:
            return 0.0
        try:
            number = positive(name, value)
        except SpecError as error:
            raise SpecError(f"{type(self).__name__}: {error}") from None
        return value if isinstance(value, int) else number

    def check(self) -> None:
        """Raise `SpecError` where the parameters contradict each other."""

    def check_rotary_dim(self, rotary_dim: int) -> None:
        """Raise `SpecError` where the schedule cannot serve that many lanes."""

    def frequencies(self, base: float, rotary_dim: int, seq_len: int | None) -> list[Decimal]:
        """Radians per position of each of the ``rotary_dim // 2`` pairs, to `PRECISION` digits."""
        with decimal_context():
            return [self.scale(theta, seq_len) for theta in paper_frequencies(base, rotary_dim)]

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        """The scheduled frequency of the pair whose unscaled frequency is ``theta``."""
        raise NotImplementedError

    def magnitude(self, seq_len: int | None) -> float:
        """A, which the schedule puts on cos and sin (scores grow by its square)."""
        return 1.0

    def at(self, seq_len: int) -> Schedule:
        """The schedule that is at every length what this one is at ``seq_len`` positions."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """``{"rope_type": ..., **parameters}``, as in Hugging Face's ``rope_parameters``."""
        return {"rope_type": self.rope_type, **asdict(self)}


@dataclass(frozen=True)
class Default(Schedule):
    """The paper's schedule: theta_i = base^(-2i/rotary_dim) (RoFormer Eq. 15)."""

    rope_type: ClassVar[str] = "default"

    def scale(self, theta: Decimal, seq_len: int | None) -> Decimal:
        return theta


def schedule_from_dict(parameters: dict[str, Any]) -> Schedule:
    """The schedule that ``{"rope_type": ..., **parameters}`` describes.

    Raises
    ------
    SpecError
        If ``rope_type`` is unknown, or a parameter is missing or not the schedule's.
    """
    values = dict(parameters)
    rope_type = values.pop("rope_type", None)
    import_module("rotary_spec.yarn")  # registers its schedules, and those of `scaling`
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
