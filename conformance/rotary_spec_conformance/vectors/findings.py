"""What a verification found: `Problem`, `TensorResult` and `Verification`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal


@dataclass(frozen=True)
class Problem:
    """A tensor that cannot be compared.

    Attributes
    ----------
    tensor : str
        Its full name.
    kind : {"missing", "extra", "truncated", "shape", "dtype"}
    message : str
    """

    tensor: str
    kind: Literal["missing", "extra", "truncated", "shape", "dtype"]
    message: str


@dataclass(frozen=True)
class TensorResult:
    """How one tensor compares.

    Attributes
    ----------
    case, tensor : str
    ok : bool
    deviation, tolerance : float
        Of the element that uses most of its tolerance, in ``unit``.
    unit : {"abs", "2^-64 turn"}
    where : dict
        Of that element: ``index``, and ``position``, ``pair`` and ``lane`` as far as it has them.
    """

    case: str
    tensor: str
    ok: bool
    deviation: float
    tolerance: float
    unit: Literal["abs", "2^-64 turn"]
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    results : list of TensorResult
        Of the tensors that could be compared.
    problems : list of Problem
        Tensors that could not.
    asked : int
        Tensors that were asked for.
    total : int
        Tensors that a whole run has.
    narrow : bool
        Whether 16-bit arithmetic was allowed for.
    """

    results: list[TensorResult]
    problems: list[Problem]
    asked: int
    total: int
    narrow: bool = False

    @property
    def failures(self) -> list[TensorResult]:
        """The tensors with wrong numbers."""
        return [result for result in self.results if not result.ok]

    @property
    def ok(self) -> bool:
        """Whether every tensor that was asked for is there, and right."""
        return not self.problems and not self.failures

    @property
    def whole(self) -> bool:
        """Whether everything was asked for, and held to one rounding."""
        return self.asked == self.total and not self.narrow

    def cases(self) -> dict[str, Literal["pass", "fail", "not compared"]]:
        """The verdict on each case of which something was asked for."""
        verdicts: dict[str, Literal["pass", "fail", "not compared"]] = {}
        verdicts |= {result.case: "pass" for result in self.results}
        for problem in self.problems:
            if problem.kind != "extra":
                verdicts[problem.tensor.partition("/")[0]] = "not compared"
        return verdicts | {result.case: "fail" for result in self.failures}

    def to_dict(self) -> dict[str, Any]:
        """The findings in JSON types; a number that is not finite becomes a string."""
        results = [asdict(result) for result in self.results]
        for result in results:
            if not isfinite(result["deviation"]):
                result["deviation"] = str(result["deviation"])
        return {
            "ok": self.ok,
            "whole": self.whole,
            "tensors": {
                "all": self.total,
                "asked": self.asked,
                "compared": len(self.results),
                "wrong": len(self.failures),
            },
            "narrow": self.narrow,
            "cases": self.cases(),
            "problems": [asdict(problem) for problem in self.problems],
            "results": results,
        }
