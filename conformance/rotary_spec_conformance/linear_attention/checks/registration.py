"""`clause`, for the suite on linear attention."""

from __future__ import annotations

from functools import partial

from rotary_spec_conformance import registry

clause = partial(registry.clause, registry=registry.LINEAR_ATTENTION_CLAUSES)
"""Register the decorated function as the check of a clause on linear attention."""
