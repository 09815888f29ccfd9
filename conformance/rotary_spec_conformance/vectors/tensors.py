"""Named tensors to a safetensors file and back, and which dtypes there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

ITEM = {"U64": 8, "I64": 8, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of an element, little-endian."""

CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NUMPY = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CODE_OF_NUMPY = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "float16": "F16",
    "bfloat16": "BF16",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor as it stands in a file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def bits(self) -> npt.NDArray[np.unsignedinteger]:
        """The elements as unsigned integers of their size."""
        return np.frombuffer(self.data, f"<u{ITEM[self.dtype]}").reshape(self.shape)

    def to_numpy(self) -> npt.NDArray[np.generic]:
        """The elements; bfloat16 as float32, which holds them exactly. A copy."""
        array = np.frombuffer(self.data, _NUMPY[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(array.dtype.newbyteorder("="))

    @classmethod
    def of(cls, array: npt.NDArray[np.generic]) -> Stored | None:
        """A NumPy array (bfloat16: of ml_dtypes) as it would be stored; None for other dtypes."""
        code = _CODE_OF_NUMPY.get(array.dtype.name)
        if code is None:
            return None
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
        return cls(code, tuple(array.shape), little.tobytes())


def encoded(tensors: Mapping[str, Stored]) -> bytes:
    """A safetensors file. Wide elements come first, so that every tensor is aligned."""
    names = sorted(tensors, key=lambda name: -ITEM[tensors[name].dtype])  # otherwise as given
    header, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        assert prod(tensor.shape) * ITEM[tensor.dtype] == len(tensor.data)
        ends = [offset, offset + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": ends}
        offset = ends[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[n].data for n in names)])
