"""Does an implementation of rotary position embedding do what the spec says?

The idea: a rotary embedding is linear in x, so feeding one-hot vectors recovers its whole matrix at
every probed position. What is compared is the operator, not a lucky random output.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from rotary_spec_conformance.linear_attention import (
        LinearAttentionTarget,
        check_linear_attention,
    )

__all__ = [
    "CLAUSES",
    "Clause",
    "Comparison",
    "Grade",
    "Identification",
    "LinearAttentionTarget",
    "Report",
    "Result",
    "SHAPES",
    "Target",
    "adapt",
    "check",
    "check_linear_attention",
    "compare",
    "identify",
    "parametrize_with_checks",
]

_LAZY = ("LinearAttentionTarget", "check_linear_attention")


def __getattr__(name: str) -> Any:
    """Import what is on linear attention when it is asked for."""
    if name in _LAZY:
        return getattr(import_module("rotary_spec_conformance.linear_attention"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
