"""Compute the vectors: ``python -m rotary_spec_conformance.vectors.generate``.

The same bytes come out every time, on every machine. Needs mpmath; takes seconds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from hashlib import sha256
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from rotary_spec_conformance.vectors import exact
from rotary_spec_conformance.vectors.arithmetic import DTYPES, INPUT_UNIT, Stream, rounded
from rotary_spec_conformance.vectors.cases import Definition, definitions
from rotary_spec_conformance.vectors.geometry import pairs_of
from rotary_spec_conformance.vectors.tensors import CODES, Stored, encoded

DATA = Path(__file__).parent / "data"
SCALE = 1 << exact.UNIT
Block = tuple[tuple[int, int], tuple[int, int]]
"""A pair's 2 x 2 matrix in units of 2^-UNIT, before the magnitude."""

_CLEARANCE = 21
"""16-bit results stay 2^-21 A (|a| + |b|), which is 8u of float32, away from any tie."""
_SMALLEST = 2.0**-8  # so that no 16-bit result is subnormal, or made of cancelled digits only


RULES = {
    "phases": "equal, bit for bit",
    "cos, sin": "absolute error <= cos_sin of the case: 2 pi |m| 2^-65 for the rounding of F, and "
    "16 * 2^-53, times A; with coordinates 2 theta 2^-53 A more",
    "y_float32, dx_float32": "absolute error <= float32 of the case * (|a| + |b|), (a, b) being "
    "the pair in x or g: 5 * 2^-24 A, and 2^-24 A for the rounding of the stored number",
    "y_float16, y_bfloat16, dx_float16, dx_bfloat16": "equal, bit for bit: no exact result is "
    "within 8 * 2^-24 A (|a| + |b|) of a tie, so float32 arithmetic and one rounding give it",
    "lanes that are not rotated": "equal, bit for bit",
}
"""What the numbers in a case's ``tolerances`` mean."""


def files() -> dict[str, bytes]:
    """The generated files by name."""
    tensors: dict[str, Stored] = {}
    entries = []
    for definition in definitions():
        entry, arrays = computed(definition)
        entries.append(entry)
        tensors |= {f"{definition.id}/{name}": array for name, array in arrays.items()}
    data = encoded(tensors)
    manifest = {
        "format": "rotary-spec vectors",
        "version": 1,
        "file": "vectors.safetensors",
        "sha256": sha256(data).hexdigest(),
        "inputs": "splitmix64 seeded with 64-bit FNV-1a of '<case>/<tensor>'; see README.md",
        "tolerances": RULES,
        "cases": entries,
    }
    lines = ",\n".join(json.dumps(entry) for entry in entries)  # one line per case
    text = json.dumps({**manifest, "cases": []}, indent=1)
    text = text.replace('"cases": []', f'"cases": [\n{lines}\n ]')
    return {"vectors.safetensors": data, "manifest.json": f"{text}\n".encode()}


def computed(definition: Definition) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The manifest's entry of a case, and its tensors."""
    spec, rows = definition.spec.to_dict(), definition.rows
    pairs = pairs_of(spec)
    thetas = exact.frequencies(spec, definition.seq_len)
    turns = [exact.turns_of(theta) for theta in thetas]
    amplitude = exact.magnitude(spec)
    positions = np.asarray(definition.positions)
    whole = positions.dtype.kind == "i"
    axes = positions if spec["sections"] else positions[None]
    places = [[_fraction(axes[p.axis][at]) for p in pairs] for at in np.ndindex(axes.shape[1:])]
    angles = [[exact.cos_sin(m, theta) for m, theta in zip(row, thetas)] for row in places]
    table_shape = (*axes.shape[1:], len(pairs))
    sign = -1 if spec["inverse"] else 1
    tensors = {
        "positions": _stored("I64" if whole else "F64", positions.shape, positions.ravel()),
        "turns": _stored("U64", (len(pairs),), [f % 2**64 for f in turns]),
        "inv_freq": _stored("F64", (len(pairs),), [float(theta) for theta in thetas]),
    }
    if whole:
        phases = [int(m) * f % 2**64 for row in places for m, f in zip(row, turns)]
        tensors["phases"] = _stored("U64", table_shape, phases)
    top, bottom = amplitude.as_integer_ratio()
    unit = exact.UNIT + bottom.bit_length() - 1
    for name, member, factor in (("cos", 0, top), ("sin", 1, sign * top)):
        values = [rounded(factor * a[member], unit, "float64")[0] for row in angles for a in row]
        tensors[name] = _stored("F64", table_shape, values)
    index = np.broadcast_to(np.arange(len(places)).reshape(axes.shape[1:]), rows).ravel()
    blocks = [[((c, -sign * s), (sign * s, c)) for c, s in angles[at]] for at in index]
    back = [[((c, sign * s), (-sign * s, c)) for c, s in angles[at]] for at in index]
    reads = [(p.first, p.second) for p in pairs]
    writes = [(p.to_first, p.to_second) for p in pairs]
    shape = (*rows, spec["head_dim"])
    for (given, result, matrices, lanes, to_lanes), dtype in product(
        (("x", "y", blocks, reads, writes), ("g", "dx", back, writes, reads)), DTYPES
    ):
        stream = Stream.named(f"{definition.id}/{given}_{dtype}")
        x, y = _rotated(stream, dtype, matrices, lanes, to_lanes, amplitude, spec["head_dim"])
        tensors[f"{given}_{dtype}"] = _stored(CODES[dtype], shape, x)
        tensors[f"{result}_{dtype}"] = _stored(CODES[dtype], shape, y)
    entry = {
        "id": definition.id,
        "spec": spec,
        "seq_len": definition.seq_len,
        "attention_factor": amplitude,
        "frequencies": [mpmath.nstr(theta, 40) for theta in thetas],
        "turns": [str(f) for f in turns],
        "tolerances": tolerances(positions, thetas, amplitude),
    }
    return entry, tensors


def tolerances(positions: Any, thetas: Sequence[Any], amplitude: float) -> dict[str, float]:
    """How far results may be off, as the README explains; 16-bit ones not at all.

    A table entry: the phase is off by half a unit of 2^-64 turn per position, an angle of at most
    half a turn is rounded three times, cos and sin err by an ulp, A is multiplied in: 16 u.
    Fractions of coordinates are multiplied by theta in float64, which adds 2u of their angle.
    Float32: 5u (SPEC, section 6), and u for the rounding of the stored result.
    """
    reach = float(np.max(np.abs(positions)))
    angle = 2 * np.pi * reach * 2.0**-65 + 16 * 2.0**-53
    if positions.dtype.kind == "f":
        angle += 2 * float(max(thetas)) * 2.0**-53
    return {"cos_sin": amplitude * angle, "float32": 6 * 2.0**-24 * amplitude}


def _rotated(
    stream: Stream,
    dtype: str,
    matrices: Sequence[Sequence[Block]],
    lanes: Sequence[tuple[int, int]],
    to_lanes: Sequence[tuple[int, int]],
    amplitude: float,
    head_dim: int,
) -> tuple[list[float], list[float]]:
    """Inputs drawn from the stream, and the correctly rounded results, row after row.

    Where a 16-bit result would depend on the last bits of float32 arithmetic, the pair is drawn
    again: so all programs must give the same 16 bits.
    """
    inputs, results = [], []
    for row in matrices:
        x = [0] * head_dim
        y = [0.0] * head_dim
        for block, (first, second), to in zip(row, lanes, to_lanes):
            while True:
                a, b = stream.value(dtype), stream.value(dtype)
                turned = _turned(block, a, b, amplitude, dtype)
                if turned is not None:
                    break
            x[first], x[second] = a, b
            y[to[0]], y[to[1]] = turned
        for lane in sorted(set(range(head_dim)) - {lane for pair in lanes for lane in pair}):
            x[lane] = stream.value(dtype)
            y[lane] = rounded(x[lane], INPUT_UNIT, dtype)[0]
        inputs += [rounded(value, INPUT_UNIT, dtype)[0] for value in x]
        results += y
    return inputs, results


def _turned(
    block: Block, a: int, b: int, amplitude: float, dtype: str
) -> tuple[float, float] | None:
    """A times the block times (a, b), correctly rounded; None where 16 bits are hard to tell."""
    top, bottom = amplitude.as_integer_ratio()
    unit = exact.UNIT + INPUT_UNIT + bottom.bit_length() - 1
    clearance = top * (abs(a) + abs(b)) * SCALE >> _CLEARANCE
    out = []
    for left, right in block:
        value, to_tie = rounded(top * (left * a + right * b), unit, dtype)
        if dtype != "float32" and (to_tie < clearance or abs(value) < _SMALLEST):
            return None
        out.append(value)
    return out[0], out[1]


def _fraction(position: Any) -> Fraction:
    return Fraction(position.item())


_PACK: dict[str, Callable[[Any], bytes]] = {
    "U64": lambda v: struct.pack("<Q", v),
    "I64": lambda v: struct.pack("<q", v),
    "F64": lambda v: struct.pack("<d", v),
    "F32": lambda v: struct.pack("<f", v),
    "F16": lambda v: struct.pack("<e", v),
    "BF16": lambda v: struct.pack("<f", v)[2:],  # the values are bfloat16 already
}


def _stored(dtype: str, shape: Sequence[int], values: Any) -> Stored:
    assert prod(shape) == len(values)
    return Stored(dtype, tuple(shape), b"".join(map(_PACK[dtype], values)))


def main() -> Iterator[str]:
    """Write the generated files, and say what was written."""
    for name, content in files().items():
        (DATA / name).write_bytes(content)
        yield f"{DATA / name}: {len(content):,} bytes"


if __name__ == "__main__":
    for line in main():
        print(line)
