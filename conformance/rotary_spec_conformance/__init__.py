"""Does an implementation of rotary position embedding do what the spec says?

The idea: a rotary embedding is linear in x, so feeding one-hot vectors recovers its whole matrix at
every probed position. What is compared is the operator, not a lucky random output.
"""

from __future__ import annotations

from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.call_shapes import SHAPES
from rotary_spec_conformance.identification.compare import Comparison, compare
from rotary_spec_conformance.identification.identify import identify
from rotary_spec_conformance.identification.result import Identification
from rotary_spec_conformance.pytest_support import parametrize_with_checks
from rotary_spec_conformance.registry import CLAUSES, Clause
from rotary_spec_conformance.results import Grade, Report, Result
from rotary_spec_conformance.runner import check
from rotary_spec_conformance.target import Target

__all__ = [
    "CLAUSES",
    "Clause",
    "Comparison",
    "Grade",
    "Identification",
    "Report",
    "Result",
    "SHAPES",
    "Target",
    "adapt",
    "check",
    "compare",
    "identify",
    "parametrize_with_checks",
]
