"""The checks on linear attention; importing a module registers its clauses in order."""

from __future__ import annotations

# The order is the order of the run: what later checks stand on comes before them.
# isort: off
from rotary_spec_conformance.linear_attention.checks import (
    form,
    weights,
    denominator,
    result,
    precision,
    gradient,
    bad_input,
)
# isort: on

__all__ = [
    "bad_input",
    "denominator",
    "form",
    "gradient",
    "precision",
    "result",
    "weights",
]
