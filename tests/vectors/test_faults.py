"""The vectors catch what goes wrong in programs, and what they report bears on the fault."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rotary_spec_conformance import vectors
from tests.vectors.faults import FAULTS

CASES = vectors.load()


def as_numpy(results: dict[str, Any]) -> dict[str, Any]:
    return {
        name: array.view(ml_dtypes.bfloat16) if code == "BF16" else array
        for name, (code, array) in results.items()
    }


def verified(rope: Any) -> vectors.Verification:
    with np.errstate(over="ignore"):  # integer arithmetic that wraps, on purpose
        return vectors.verify(as_numpy(rope.results()))


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 25


def test_the_program_is_right(program: ModuleType, exported: Path) -> None:
    assert verified(program.Rope(exported)).ok


@pytest.mark.parametrize("name", FAULTS)
def test_caught(name: str, program: ModuleType, exported: Path) -> None:
    """Wrong where the fault bears, everywhere it bears, and nowhere else."""
    fault = FAULTS[name]
    found = verified(fault.program(program.Rope)(exported))
    assert not found.problems
    failing = {result.case for result in found.failures}
    bearing = {case.id for case in CASES.values() if fault.bears(case)}
    assert failing
    assert failing - bearing == set(), "cases that fail without reason"
    assert bearing - failing == set(), "cases in which the fault does not show"
    assert all(result.tensor.startswith(fault.tensors) for result in found.failures)
