"""Rotary position embedding from the exported golden vectors alone: NumPy, no other library.

rotary-spec vectors export DIR
python examples/vectors_python.py DIR
rotary-spec vectors verify DIR
"""

import json
import sys
from pathlib import Path

import numpy as np

KINDS = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
RADIANS = 2 * np.pi / 2**64  # one unit of a phase


class Rope:
    """The steps of SPEC.md, one method each."""

    dtypes = tuple(CODES)

    def __init__(self, folder):
        self.manifest = json.loads(Path(folder, "manifest.json").read_text(encoding="utf-8"))
        raw = Path(folder, "vectors.safetensors").read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        self.header, self.data = json.loads(raw[8:start]), raw[start:]

    def tensor(self, case, name):
        entry = self.header[f"{case['id']}/{name}"]
        begin, end = entry["data_offsets"]
        array = np.frombuffer(self.data[begin:end], KINDS[entry["dtype"]])
        return array.reshape(entry["shape"])

    def positions(self, case):
        """One row per axis: shape (axes, ...)."""
        positions = self.tensor(case, "positions")
        return positions if case["spec"]["sections"] else positions[None]

    def turns(self, case):
        return self.tensor(case, "turns")

    def inv_freq(self, case):
        return self.tensor(case, "inv_freq")

    def magnitude(self, case):
        return case["attention_factor"]

    def axes(self, spec):
        """The axis of every pair."""
        count, sections = spec["rotary_dim"] // 2, spec["sections"]
        if not sections:
            return [0] * count
        sizes, order = sections["sizes"], sections["order"]
        if order == "chunked":
            return [axis for axis, size in enumerate(sizes) for _ in range(size)]
        if order == "interleaved":
            n = len(sizes)
            return [i % n if i < n * sizes[i % n] else 0 for i in range(count)]
        return list(range(1, len(sizes))) * sizes[1] + [0] * sizes[0]

    def blocks(self, spec):
        """Pairs in each run of lanes that the layout pairs by itself."""
        sections = spec["sections"]
        if sections and sections["pairing"] == "within":
            return sections["sizes"]
        return [spec["rotary_dim"] // 2]

    def lanes(self, spec, layout):
        """First and second lanes of the pairs."""
        first, second, start = [], [], spec["rotary_start"]
        for size in self.blocks(spec):
            place = start + np.arange(size) * (2 if layout == "interleaved" else 1)
            first += [*place]
            second += [*place + (1 if layout == "interleaved" else size)]
            start += 2 * size
        return first, second

    def input_lanes(self, spec):
        return self.lanes(spec, spec["layout"])

    def output_lanes(self, spec):
        return self.lanes(spec, spec["output_layout"] or spec["layout"])

    def phases(self, positions, turns):
        """Shape (..., pairs); wraps at 2^64, which is one turn."""
        return np.floor(positions).astype(np.int64).view(np.uint64) * turns

    def angles(self, positions, case):
        angles = self.phases(positions, self.turns(case)).view(np.int64) * RADIANS
        return angles + (positions - np.floor(positions)) * self.inv_freq(case)

    def table(self, case):
        """Phases, A cos and A sin, each of shape (..., pairs)."""
        spec = case["spec"]
        positions = np.moveaxis(self.positions(case)[self.axes(spec)], 0, -1)
        angles = self.angles(positions, case)
        size, sign = self.magnitude(case), self.sign(spec)
        phases = self.phases(positions, self.turns(case))
        return phases, size * np.cos(angles), sign * size * np.sin(angles)

    def sign(self, spec):
        return -1.0 if spec["inverse"] else 1.0

    def rotate(self, x, cos, sin, reads, writes):
        """Float64 in, float64 out."""
        y = x.copy()
        a, b = x[..., reads[0]], x[..., reads[1]]
        y[..., writes[0]], y[..., writes[1]] = a * cos - b * sin, b * cos + a * sin
        return y

    def rotate_back(self, g, cos, sin, reads, writes):
        return self.rotate(g, cos, -sin, writes, reads)

    def widened(self, stored, dtype):
        if dtype == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return stored.astype(np.float64)

    def rounded(self, y, dtype):
        """To nearest, ties to even, as it is stored."""
        if dtype != "bfloat16":
            return y.astype(dtype)
        _, exponent = np.frexp(y)
        exact = np.ldexp(np.rint(np.ldexp(y, 8 - exponent)), exponent - 8).astype(np.float32)
        return (exact.view(np.uint32) >> 16).astype(np.uint16)

    def outputs(self, case):
        """Every output of a case by name: (dtype, array)."""
        spec = case["spec"]
        phases, cos, sin = self.table(case)
        found = {"cos": ("F64", cos), "sin": ("F64", sin)}
        if self.positions(case).dtype.kind == "i":
            found["phases"] = ("U64", phases)
        lanes = self.input_lanes(spec), self.output_lanes(spec)
        for dtype in self.dtypes:
            for given, result, turn in (("x", "y", self.rotate), ("g", "dx", self.rotate_back)):
                x = self.widened(self.tensor(case, f"{given}_{dtype}"), dtype)
                y = self.rounded(turn(x, cos, sin, *lanes), dtype)
                found[f"{result}_{dtype}"] = (CODES[dtype], y)
        return found

    def results(self):
        """Every output of every case by its full name."""
        return {
            f"{case['id']}/{name}": output
            for case in self.manifest["cases"]
            for name, output in self.outputs(case).items()
        }


def write(path, results):
    """A safetensors file."""
    header, parts, offset = {}, [], 0
    for name, (dtype, array) in results.items():
        data = array.astype(KINDS[dtype]).tobytes()
        ends = [offset, offset + len(data)]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": ends}
        parts.append(data)
        offset = ends[1]
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder / "results.safetensors", Rope(folder).results())
