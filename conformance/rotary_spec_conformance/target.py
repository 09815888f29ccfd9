"""`Target`: the implementation under test, as one canonical call, and what it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rotary_spec import SpecError, TargetError
from rotary_spec_backends import Framework

PositionKind = Literal["explicit", "offset", "arange"]

Rotary = Callable[[Any, Any], Any]
"""``f(x, positions) -> y`` with x of shape (batch, heads, seq, head_dim).

``positions`` is an integer array of shape (seq,) or (batch, seq) where they are explicit, a Python
int (the position of the first row) where they are an offset, and None for ``arange``. Where a token
stands on several axes, explicit positions have shape (axes, seq) or (axes, batch, seq).
"""


@dataclass(frozen=True)
class Target:
    """An implementation under test.

    Parameters
    ----------
    name : str
    build : callable
        Makes an instance, a `Rotary`. Called again for each group of checks, so that what one
        call leaves behind is not taken for what the implementation computes.
    framework : Framework
        Makes and reads the arrays that the instance takes.
    head_dim : int
    positions : {"explicit", "offset", "arange"}
        How a call is told where its rows stand.
    max_position : int or None
        First position that the implementation does not promise to serve; None if there is none.
    dtypes : tuple of str, or None
        Floating dtypes that it takes; None: all that the framework has.
    row_positions : bool
        Whether explicit positions may differ by batch row, shape (batch, seq).
    axes : int or None
        Number of position axes (such as time, row, column); None where a position is one number.
    coordinates : bool
        Whether positions on several axes may be float32 coordinates, as in vision.
    fresh : bool
        Whether `build` makes independent instances; False for a plain function.
    given_tables : bool
        Whether the caller supplies cos and sin. Then frequencies, origin and angle precision are
        the caller's and are not judged.
    in_place : bool
        Whether it writes its result into ``x``, and says so.
    differentiable : bool
        Whether a gradient is to be expected where the framework has gradients.
    pair : callable or None
        Makes ``f(q, k, positions) -> (q, k)`` for implementations that rotate both together.
    versions : dict
        Version of each library involved.
    about : str
        One line on what exactly is called.
    """

    name: str
    build: Callable[[], Rotary]
    framework: Framework
    head_dim: int
    positions: PositionKind = "explicit"
    max_position: int | None = None
    dtypes: tuple[str, ...] | None = None
    row_positions: bool = False
    axes: int | None = None
    coordinates: bool = False
    fresh: bool = True
    given_tables: bool = False
    in_place: bool = False
    differentiable: bool = True
    pair: Callable[[], Callable[[Any, Any, Any], Any]] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    about: str = ""

    def __post_init__(self) -> None:
        if self.head_dim <= 0 or self.head_dim % 2:
            raise SpecError(f"head_dim must be even and positive, got {self.head_dim}")
        if self.positions not in ("explicit", "offset", "arange"):
            raise TargetError(
                f"positions must be 'explicit', 'offset' or 'arange', got {self.positions!r}"
            )
        self._check_axes()
        unknown = set(self.dtypes or ()) - set(type(self.framework).dtypes)
        if unknown:
            raise TargetError(
                f"dtypes must be of {', '.join(type(self.framework).dtypes)}; "
                f"got {', '.join(sorted(unknown))}"
            )

    def _check_axes(self) -> None:
        if self.axes is None:
            if self.coordinates:
                raise TargetError("coordinates need axes, the number of axes that they are on")
            return
        if isinstance(self.axes, bool) or not isinstance(self.axes, int) or self.axes < 1:
            raise TargetError(f"axes must be a positive integer or None, got {self.axes!r}")
        if self.positions != "explicit":
            raise TargetError(f"axes need explicit positions, got {self.positions!r} ones")

    def supported_dtypes(self) -> tuple[str, ...]:
        """The dtypes to test: declared by the target and available in its framework."""
        there = self.framework.supported_dtypes()
        return there if self.dtypes is None else tuple(d for d in self.dtypes if d in there)

    def usual_dtypes(self) -> tuple[str, ...]:
        """Those to test where nobody names any: of NumPy's, its own.

        bfloat16 is ml_dtypes', and not every NumPy function need know it.
        """
        there = self.supported_dtypes()
        if self.dtypes is None and self.framework.name == "numpy":
            return tuple(dtype for dtype in there if dtype != "bfloat16")
        return there
