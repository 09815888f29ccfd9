"""Encodings that add a vector of the absolute position to the input (RoFormer Eq. 3, 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rotary_spec._array import Array
from rotary_spec.encodings.base import Call, Encoding
from rotary_spec.spec import RotarySpec


@dataclass(frozen=True, eq=False, kw_only=True)
class Learned(Encoding):
    """Learned absolute positions: q_m = W_q (x_m + p_m), p a table (RoFormer Eq. 3; BERT, GPT-2).

    Parameters
    ----------
    length : int
        Rows of the table: positions 0 .. length - 1; elsewhere the encoding is not defined.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec.encodings import Learned
    >>> Learned(dim=4, length=8).scores(np.ones((2, 4)), np.ones((3, 4)), [0, 1], [0, 1, 2]).shape
    (2, 3)
    """

    length: int = 512
    name: ClassVar[str] = "learned"
    equation: ClassVar[str] = "3"

    def __post_init__(self) -> None:
        self._at_least("length", 1)
        super().__post_init__()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(), "p": (self.length, self.dim)}

    def evaluate(self, at: Call) -> Array:
        q = at.project(at.x + at.positions_of_table("p", at.m), "W_q")
        return at.products(q, at.project(at.y + at.positions_of_table("p", at.n), "W_k"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Sinusoidal(Encoding):
    """Sinusoids of the absolute position added to the input (RoFormer Eq. 3 and 4; Vaswani 2017).

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec.encodings import Sinusoidal
    >>> Sinusoidal(dim=4).scores(np.ones((2, 4)), np.ones((3, 4)), [0, 1], [0, 1, 2]).shape
    (2, 3)
    """

    name: ClassVar[str] = "sinusoidal"
    equation: ClassVar[str] = "3, 4"

    def __post_init__(self) -> None:
        RotarySpec(self.dim)  # sinusoids come in pairs, of the paper's frequencies
        super().__post_init__()

    def evaluate(self, at: Call) -> Array:
        q = at.project(at.x + at.sinusoids(at.m), "W_q")
        return at.products(q, at.project(at.y + at.sinusoids(at.n), "W_k"))
