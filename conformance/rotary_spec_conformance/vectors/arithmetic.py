"""Integers in, correctly rounded floating point out; and a stream of inputs that any language has.

A number n * 2^-k is a pair of Python integers: nothing here rounds but `rounded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPES = ("float32", "float16", "bfloat16")
PRECISION = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
"""Bits of the significand."""

INPUT_UNIT = 25
"""Inputs are integers in units of 2^-INPUT_UNIT: 24 bits, of size 1/4 .. 2."""

_MASK = 2**64 - 1


@dataclass
class Stream:
    """splitmix64 (Steele, Lea and Flood, 2014), seeded with FNV-1a of a name."""

    state: int

    @classmethod
    def named(cls, name: str) -> Stream:
        state = 0xCBF29CE484222325
        for byte in name.encode():
            state = (state ^ byte) * 0x100000001B3 & _MASK
        return cls(state)

    def next(self) -> int:
        self.state = self.state + 0x9E3779B97F4A7C15 & _MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return z ^ z >> 31

    def value(self, dtype: str) -> int:
        """A number of that dtype, 1/4 <= |x| < 2, in units of 2^-INPUT_UNIT.

        Top bits of a draw: the fraction; bit 0: the sign; bits 1 to 20 modulo 3: the exponent.
        """
        z, bits = self.next(), PRECISION[dtype] - 1
        fraction = (1 << bits) + (z >> 64 - bits)
        size = fraction << INPUT_UNIT - 2 - bits + (z >> 1 & 0xFFFFF) % 3
        return -size if z & 1 else size


def rounded(n: int, k: int, dtype: str) -> tuple[float, int]:
    """The number n * 2^-k in a dtype, ties to even; and its distance from a tie, in 2^-k.

    Subnormal numbers and overflow are not provided for: no vector comes near.
    """
    drop = abs(n).bit_length() - PRECISION[dtype]
    if drop <= 0:
        return math.ldexp(n, -k), 2**k  # as it stands; ties are far
    kept, rest = divmod(abs(n), 1 << drop)
    half = 1 << drop - 1
    kept += rest > half or (rest == half and kept & 1)
    return math.copysign(math.ldexp(kept, drop - k), n), abs(rest - half)
