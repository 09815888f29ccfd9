"""How fast a rotation is, beside a copy of the same bytes.

Rotation moves bytes: its limit is a copy. ``rotary-spec bench`` times both in one run, with every
backend that is available and, if asked, everybody else's rotations that are installed; ratios are
what to read. Nothing is timed before its result was held against the reference.
"""

from __future__ import annotations

from rotary_spec_bench.cases import Case, Inputs, grid
from rotary_spec_bench.clock import DeviceClock, HostClock
from rotary_spec_bench.compare import compare, read
from rotary_spec_bench.contestants import Contestant, Prepared, Unsuited, contestants
from rotary_spec_bench.runner import CaseResult, Row, complete, run, run_case

__all__ = [
    "Case",
    "CaseResult",
    "Contestant",
    "DeviceClock",
    "HostClock",
    "Inputs",
    "Prepared",
    "Row",
    "Unsuited",
    "compare",
    "complete",
    "contestants",
    "grid",
    "read",
    "run",
    "run_case",
]
