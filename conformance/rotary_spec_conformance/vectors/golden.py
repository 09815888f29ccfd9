"""The vectors as they are shipped: `load` reads them, nothing is computed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from rotary_spec import RotarySpec, VectorsError
from rotary_spec.safetensors_file import read_header
from rotary_spec_conformance.vectors.geometry import Pair, pairs_of
from rotary_spec_conformance.vectors.tensors import Stored

DATA = Path(__file__).parent / "data"
FILES = ("vectors.safetensors", "manifest.json", "manifest.schema.json", "README.md")
OUTPUTS = (
    "phases", "cos", "sin",
    *(f"{name}_{dtype}" for name in ("y", "dx") for dtype in ("float32", "float16", "bfloat16")),
)  # fmt: skip
"""What a program computes; the other tensors are given."""


@dataclass(frozen=True, repr=False)
class Case:
    """One case: a spec, inputs, and what comes out.

    Attributes
    ----------
    id : str
    spec : RotarySpec
    seq_len : int or None
        Length of the whole sequence, where the schedule depends on it.
    attention_factor : float
        A, resolved.
    frequencies : tuple of str
        Decimal digits of theta of every pair, radians per position.
    turns : tuple of int
        F of every pair, in 2^-64 turn; at least 2^64 where theta is at least 2 pi.
    tolerances : dict
        ``cos_sin``: absolute; ``float32``: times |a| + |b| of the pair. See the README.
    stored : mapping of str to Stored
        Tensors by name, without the case's.
    """

    id: str
    spec: RotarySpec
    seq_len: int | None
    attention_factor: float
    frequencies: tuple[str, ...]
    turns: tuple[int, ...]
    tolerances: dict[str, float]
    stored: Mapping[str, Stored] = field(compare=False)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A tensor such as ``x_float32``; bfloat16 as float32, which holds it exactly."""
        return self.stored[name].to_numpy()

    def __repr__(self) -> str:
        return f"Case({self.id!r}, {self.spec!r})"

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the spec: their lanes, and the axis that turns them."""
        return pairs_of(self.spec.to_dict())

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that a program computes for this case."""
        return tuple(name for name in OUTPUTS if name in self.stored)


class Vectors(Mapping[str, Case]):
    """Cases by id."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self._cases = cases

    def __getitem__(self, name: str) -> Case:
        return self._cases[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)

    def outputs(self) -> dict[str, Stored]:
        """Every tensor that a program computes, by its full name, with the right values."""
        return {
            f"{case.id}/{name}": case.stored[name]
            for case in self.values()
            for name in case.outputs
        }


@cache
def load() -> Vectors:
    """The golden vectors of this release.

    Returns
    -------
    Vectors
        A mapping of case ids to `Case`.

    Raises
    ------
    VectorsError
        If the installed files are not there.

    Examples
    --------
    >>> from rotary_spec_conformance import vectors
    >>> case = vectors.load()["position-2p17-half"]
    >>> case.spec, case["positions"].tolist()
    (RotarySpec(head_dim=8, layout='half'), [131071, 131072, 131073, 131075])
    >>> case["y_float32"].shape
    (4, 8)
    """
    try:
        manifest = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
        data = (DATA / "vectors.safetensors").read_bytes()
    except OSError as error:
        raise VectorsError(f"the golden vectors are not installed: {error}") from error
    tensors = tensors_of(data, "vectors.safetensors")
    by_case: dict[str, dict[str, Stored]] = {}
    for name, tensor in tensors.items():
        case, _, short = name.partition("/")
        by_case.setdefault(case, {})[short] = tensor
    return Vectors(
        {
            entry["id"]: Case(
                id=entry["id"],
                spec=RotarySpec.from_dict(entry["spec"]),
                seq_len=entry["seq_len"],
                attention_factor=entry["attention_factor"],
                frequencies=tuple(entry["frequencies"]),
                turns=tuple(map(int, entry["turns"])),
                tolerances=entry["tolerances"],
                stored=by_case[entry["id"]],
            )
            for entry in manifest["cases"]
        }
    )


def tensors_of(data: bytes, label: str) -> dict[str, Stored]:
    """The tensors of a whole safetensors file."""
    header = read_header(io.BytesIO(data), len(data), label)
    start = len(data) - header.data_bytes
    return {
        t.name: Stored(t.dtype, t.shape, data[start + t.begin : start + t.end])
        for t in header.tensors
    }
