"""The checks, one module per group; importing a module registers its clauses in order."""

from __future__ import annotations

# The order is the order of the run: what a call leaves behind is looked at first, and what later
# checks stand on comes before them.
# isort: off
from rotary_spec_conformance.checks import (
    state,
    purity,
    equivariance,
    rotation,
    relative,
    frequencies,
    precision,
    positions,
    axes,
    gradient,
    bad_input,
)
# isort: on

__all__ = [
    "axes",
    "bad_input",
    "equivariance",
    "frequencies",
    "gradient",
    "positions",
    "precision",
    "purity",
    "relative",
    "rotation",
    "state",
]
