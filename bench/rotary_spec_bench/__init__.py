"""How fast a rotation is, beside a copy of the same bytes.

Rotation moves bytes: its limit is a copy. ``pytest bench`` times both in one run, for every backend
that is available; ratios are what to read.
"""

from __future__ import annotations

from rotary_spec_bench.cases import CASES, Case, copy, error, inputs

__all__ = ["CASES", "Case", "copy", "error", "inputs"]
