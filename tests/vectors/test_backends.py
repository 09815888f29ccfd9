"""The reference and the project's own backends give the golden vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from array_api_compat import numpy as xp

import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_conformance import vectors

CASES = vectors.load()
DTYPES: dict[str, Any] = {
    "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
}  # fmt: skip


def results(rotate: Callable[..., Any], cases: Iterable[vectors.Case]) -> dict[str, Any]:
    """``rotate(arrays by dtype, case, spec)`` on the inputs and on the gradients of every case."""
    found = {}
    for case in cases:
        for given, output, spec in (("x", "y", case.spec), ("g", "dx", case.spec.transposed())):
            arrays = {dtype: case[f"{given}_{dtype}"] for dtype in DTYPES}
            for dtype, y in rotate(arrays, case, spec).items():
                found[f"{case.id}/{output}_{dtype}"] = y
    return found


def test_reference() -> None:
    """Every output, phases too."""

    def rotate(arrays: dict[str, Any], case: vectors.Case, spec: rs.RotarySpec) -> dict[str, Any]:
        return {
            d: rs.rotate(x.astype(DTYPES[d]), case["positions"], spec, seq_len=case.seq_len)
            for d, x in arrays.items()
        }

    found = results(rotate, CASES.values())
    for case in CASES.values():
        positions, spec = case["positions"], case.spec
        table = rs.cos_sin(positions, spec, seq_len=case.seq_len, dtype=np.float64)
        found[f"{case.id}/cos"], found[f"{case.id}/sin"] = table
        if "phases" in case.outputs:
            phase = rs.phases(positions, case.turns, xp, spec.axis_of_pair)
            high, low = (word.astype(np.uint32).astype(np.uint64) for word in phase)
            found[f"{case.id}/phases"] = high << np.uint64(32) | low
    verified = vectors.verify(found)
    assert verified.failures == []
    assert verified.problems == []
    assert verified.whole


def aspects(case: vectors.Case) -> set[Any]:
    spec, positions = case.spec, case["positions"]
    return {
        ("layouts", spec.layout, spec.output_layout),
        ("sections", spec.sections and (spec.sections.order, spec.sections.pairing)),
        ("lanes", spec.rotary_start > 0, spec.rotary_start + spec.rotary_dim < spec.head_dim),
        ("inverse", spec.inverse, positions.dtype.kind),
        ("rows", case["x_float32"].ndim),
        ("reach", int(np.abs(positions).max()).bit_length() // 4),
    }


def one_of_each() -> list[vectors.Case]:
    """Cases until every aspect has been seen: JAX compiles each anew, which is all of the time.

    Schedules are no aspect: every backend takes its frequencies from the reference.
    """
    seen: set[Any] = set()
    chosen = []
    for case in CASES.values():
        if case.spec.pairs > 2 and aspects(case) - seen:
            seen |= aspects(case)
            chosen.append(case)
    return chosen


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_backend(name: str) -> None:
    """16-bit results bit for bit, float32 ones within 5u; JAX without 64-bit numbers."""
    pytest.importorskip(name)
    backend = select(name, device="cpu")
    framework = backend.framework

    def rotate(arrays: dict[str, Any], case: vectors.Case, spec: rs.RotarySpec) -> dict[str, Any]:
        native = tuple(framework.asarray(x, dtype) for dtype, x in arrays.items())
        rotated = backend.rotate(native, case["positions"], spec, seq_len=case.seq_len)
        return {
            dtype: framework.to_numpy(y).astype(DTYPES[dtype])
            for dtype, y in zip(arrays, rotated, strict=True)
        }

    cases = one_of_each() if name == "jax" else list(CASES.values())
    verified = vectors.verify(
        results(rotate, cases), only=[f"{c.id}/{output}_*" for c in cases for output in ("y", "dx")]
    )
    assert verified.failures == []
    assert verified.problems == []
    assert verified.asked == 6 * len(cases)
