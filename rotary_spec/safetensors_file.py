"""The safetensors format as far as copying needs it: the header, held against the file.

Eight bytes of length (little-endian), so many bytes of JSON, then the tensors' bytes without gaps.
Every claim of a header is checked before anybody relies on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, BinaryIO

from rotary_spec.errors import CheckpointError

MAX_HEADER = 100_000_000
"""The format's own limit on the bytes of JSON."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of an element. Bytes are moved whatever they mean, so other dtypes are taken unchecked."""


@dataclass(frozen=True)
class Tensor:
    """One entry of the header; ``begin`` and ``end`` count from the first byte after it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """A checked header.

    Parameters
    ----------
    text : bytes
        The JSON as it stands in the file, ``__metadata__`` and padding included.
    tensors : tuple of Tensor
        In the order of their bytes, which follow each other without gaps.
    """

    text: bytes
    tensors: tuple[Tensor, ...]

    @property
    def data_bytes(self) -> int:
        return self.tensors[-1].end if self.tensors else 0

    def to_bytes(self) -> bytes:
        """Length and JSON, padded with spaces so that the tensors start at a multiple of 8."""
        text = self.text + b" " * (-len(self.text) % 8)
        return len(text).to_bytes(8, "little") + text


def read_header(file: BinaryIO, size: int, label: str) -> Header:
    """Read and check the header of a safetensors file; the file is left at its first tensor.

    Parameters
    ----------
    file : binary file, at its start
    size : int
        Bytes of the whole file.
    label : str
        What to call the file in messages.

    Raises
    ------
    CheckpointError
        If the header is malformed, or does not account for every byte of the file.

    Examples
    --------
    >>> import io
    >>> from rotary_spec.safetensors_file import read_header
    >>> text = b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}  '
    >>> file = io.BytesIO(len(text).to_bytes(8, "little") + text + bytes(4))
    >>> read_header(file, 68, "a.safetensors").tensors
    (Tensor(name='a', dtype='F16', shape=(2,), begin=0, end=4),)
    """
    header = read_entries(file, size, label)
    check_offsets(header, size - 8 - len(header.text), label)
    return header


def read_entries(file: BinaryIO, size: int, label: str) -> Header:
    """`read_header` without `check_offsets`: what the header says, of a file that may be cut."""
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise CheckpointError(
            f"{label} is not a safetensors file, or is cut short: a header of {length:,} bytes in "
            f"a file of {size:,}"
        )
    text = file.read(length)
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: the header is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{label}: the header is not a JSON object")
    _check_metadata(entries.pop("__metadata__", {}), label)
    tensors = [_tensor(name, entry, label) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    return Header(text, tuple(tensors))


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        key.encode()  # a lone surrogate is no text: refused here, before it is printed
        if key in entries:
            raise ValueError(f"{key!r} occurs twice")
        entries[key] = value
    return entries


def _check_metadata(metadata: object, label: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{label}: __metadata__ must map strings to strings")


def _tensor(name: str, entry: object, label: str) -> Tensor:
    where = f"{label}: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} must have dtype, shape and data_offsets, got {entry!r:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise CheckpointError(f"{where}: dtype must be a string, got {dtype!r:.80}")
    if not _counts(shape):
        raise CheckpointError(f"{where}: shape must list sizes, got {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where}: data_offsets must be [begin, end], got {offsets!r:.80}")
    tensor = Tensor(name, dtype, tuple(shape), *offsets)
    bits = _BITS.get(dtype)
    if bits is not None and prod(shape) * bits != 8 * tensor.nbytes:
        raise CheckpointError(
            f"{where}: {dtype} of shape {tensor.shape} does not take the {tensor.nbytes:,} bytes "
            "that its offsets give"
        )
    return tensor


def _counts(values: object) -> bool:
    """Whether ``values`` lists sizes or offsets, few and small enough to multiply."""
    if not isinstance(values, list) or len(values) > 64:
        return False
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def check_offsets(header: Header, available: int, label: str) -> None:
    """Tensors must follow each other from 0 to the end of the file: no gap, no overlap."""
    start = Tensor("the header", "", (), 0, 0)
    for before, tensor in pairwise([start, *header.tensors]):
        if tensor.begin != before.end:
            kind = "a gap" if tensor.begin > before.end else "an overlap"
            raise CheckpointError(
                f"{label}: {kind} between {before.name!r}, which ends at {before.end:,}, and "
                f"{tensor.name!r}, which begins at {tensor.begin:,}"
            )
    end = header.data_bytes
    if end != available:
        kind = "is cut short" if end > available else "goes on after its last tensor"
        raise CheckpointError(
            f"{label} {kind}: its tensors take {end:,} bytes, the file holds {available:,}"
        )
