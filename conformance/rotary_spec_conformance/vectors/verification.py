"""Hold results, from a program in any language, against the golden vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rotary_spec import VectorsError
from rotary_spec_conformance.tolerances import UNIT_ROUNDOFF
from rotary_spec_conformance.vectors.findings import Problem, TensorResult, Verification
from rotary_spec_conformance.vectors.golden import Case, Vectors, load
from rotary_spec_conformance.vectors.results_file import read_results
from rotary_spec_conformance.vectors.tensors import Stored

Floats = npt.NDArray[np.float64]
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "uint64": "U64"}


def verify(
    results: str | Path | Mapping[str, npt.NDArray[Any]],
    *,
    only: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    narrow: bool = False,
) -> Verification:
    """Compare results with the golden vectors.

    Parameters
    ----------
    results : path or mapping
        A safetensors file, or arrays by name (bfloat16 ones of ml_dtypes): ``<case>/y_float32``
        and so on.
    only : iterable of str
        Patterns of cases (``axes-*``) or tensors (``*/y_float32``); none means all.
    dtypes : iterable of str
        Of the tensors to compare: float32, float16, bfloat16, float64 (cos and sin) or uint64
        (phases); none means all.
    narrow : bool
        Allow results of 16 bits to come from 16-bit arithmetic: SPEC's 5u of their own dtype. By
        default they must be those of float32 arithmetic, rounded once.

    Returns
    -------
    Verification

    Raises
    ------
    VectorsError
        If the file cannot be read, or a pattern or dtype selects nothing.

    Examples
    --------
    >>> from rotary_spec_conformance import vectors
    >>> case = vectors.load()["width-2-half"]
    >>> found = vectors.verify({"width-2-half/cos": case["cos"]}, only=["width-2-half/cos"])
    >>> found.ok, found.whole
    (True, False)
    """
    vectors = load()
    expected = vectors.outputs()
    asked = _selected(expected, tuple(only), tuple(dtypes))
    given, problems = _given(results, asked, expected)
    unreadable = {problem.tensor for problem in problems}
    compared: list[TensorResult] = []
    for name in asked:
        if name in unreadable:
            continue
        problem = _misfit(name, given.get(name), expected[name])
        if problem is not None:
            problems.append(problem)
            continue
        compared.append(_compared(vectors, name, given[name], narrow))
    return Verification(compared, problems, len(asked), len(expected), narrow)


def _selected(
    expected: Mapping[str, Stored], only: Sequence[str], dtypes: Sequence[str]
) -> list[str]:
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise VectorsError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    for pattern in only:
        if not any(_matches(name, pattern) for name in expected):
            raise VectorsError(f"pattern {pattern!r} matches no case and no tensor of the vectors")
    codes = [DTYPES[dtype] for dtype in dtypes]
    asked = [
        name
        for name, tensor in expected.items()
        if (not only or any(_matches(name, pattern) for pattern in only))
        and (not codes or tensor.dtype in codes)
    ]
    if not asked:
        raise VectorsError(f"no tensor that matches {', '.join(only)} is {' or '.join(dtypes)}")
    return asked


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition("/")[0], pattern)


def _given(
    results: str | Path | Mapping[str, npt.NDArray[Any]],
    asked: Sequence[str],
    expected: Mapping[str, Stored],
) -> tuple[dict[str, Stored], list[Problem]]:
    """The results by name, and what is wrong with the collection itself."""
    if isinstance(results, str | Path):
        given, problems = read_results(Path(results))
    else:
        given, problems = {}, []
        for name, array in results.items():
            stored = Stored.of(np.asarray(array))
            if stored is None:
                dtype = np.asarray(array).dtype.name
                problems.append(Problem(name, "dtype", f"is {dtype}, which no result is"))
            else:
                given[name] = stored
    extra = [name for name in given if name not in expected]
    problems += [Problem(name, "extra", "is no tensor of the vectors") for name in extra]
    problems = [p for p in problems if p.tensor not in expected or p.tensor in set(asked)]
    return given, problems


def _misfit(name: str, found: Stored | None, wanted: Stored) -> Problem | None:
    if found is None:
        return Problem(name, "missing", "is not there")
    if found.dtype != wanted.dtype:
        return Problem(name, "dtype", f"is {found.dtype}, expected {wanted.dtype}")
    if found.shape != wanted.shape:
        return Problem(name, "shape", f"is of shape {found.shape}, expected {wanted.shape}")
    return None


def _compared(vectors: Vectors, name: str, found: Stored, narrow: bool) -> TensorResult:
    case_id, _, tensor = name.partition("/")
    case = vectors[case_id]
    wanted = case.stored[tensor]
    if tensor == "phases":
        difference = (found.bits - wanted.bits).view(np.int64)  # wraps: the short way round
        deviation, tolerance = np.abs(difference.astype(np.float64)), np.zeros(wanted.shape)
    else:
        with np.errstate(invalid="ignore"):
            deviation = np.abs(
                found.to_numpy().astype(np.float64) - wanted.to_numpy().astype(np.float64)
            )
        tolerance = tolerances_of(case, tensor, narrow)
    with np.errstate(divide="ignore", invalid="ignore"):
        used = np.where(deviation == 0, 0.0, deviation / tolerance)
    used = np.where(np.isnan(used), np.inf, used)  # NaN is a wrong number
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(used)), used.shape))
    return TensorResult(
        case_id,
        tensor,
        ok=bool(used[index] <= 1),
        deviation=float(deviation[index]),
        tolerance=float(tolerance[index]),
        unit="2^-64 turn" if tensor == "phases" else "abs",
        where=_where(case, tensor, index),
    )


def tolerances_of(case: Case, tensor: str, narrow: bool = False) -> Floats:
    """How far each element of an output may be off; see the README of the vectors."""
    shape = case.stored[tensor].shape
    if tensor in ("cos", "sin"):
        return np.full(shape, case.tolerances["cos_sin"])
    name, _, dtype = tensor.partition("_")
    factor = case.tolerances["float32"]
    if dtype != "float32":
        factor *= UNIT_ROUNDOFF[dtype] / UNIT_ROUNDOFF["float32"] if narrow else 0.0
    bound = np.zeros(shape)
    if factor == 0:
        return bound
    size = np.abs(case[("x_" if name == "y" else "g_") + dtype].astype(np.float64))
    reads, writes = _lanes(case, name)
    bound[..., writes[0]] = factor * (size[..., reads[0]] + size[..., reads[1]])
    bound[..., writes[1]] = bound[..., writes[0]]
    return bound


def _lanes(case: Case, name: str) -> tuple[list[list[int]], list[list[int]]]:
    """First and second lanes of the pairs, as an output ``y`` or ``dx`` reads and writes them."""
    reads = [[p.first for p in case.pairs], [p.second for p in case.pairs]]
    writes = [[p.to_first for p in case.pairs], [p.to_second for p in case.pairs]]
    return (reads, writes) if name == "y" else (writes, reads)


def _where(case: Case, tensor: str, index: tuple[int, ...]) -> dict[str, Any]:
    """Position, pair and lane of an element."""
    where: dict[str, Any] = {"index": list(index)}
    number: int | None = index[-1]
    if tensor not in ("phases", "cos", "sin"):
        where["lane"] = index[-1]
        _, writes = _lanes(case, tensor.partition("_")[0])
        number = next((i for i, ends in enumerate(zip(*writes)) if index[-1] in ends), None)
    if number is None:
        return where  # a lane that passes through
    positions = case["positions"]
    if case.spec.sections is not None:
        where["axis"] = case.pairs[number].axis
        positions = positions[case.pairs[number].axis]
    rows = case.stored[tensor].shape[:-1]
    return where | {
        "pair": number,
        "position": np.broadcast_to(positions, rows)[index[:-1]].item(),
    }
