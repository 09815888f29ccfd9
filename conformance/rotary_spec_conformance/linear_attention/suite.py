"""`check_linear_attention`: run every clause on a linear attention and gather the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec.linear_attention_terms import AnyFeatureMap, check_options
from rotary_spec_backends import Framework
from rotary_spec_conformance.context import LIMIT
from rotary_spec_conformance.engine import (
    chosen_dtypes,
    known_failures,
    run_clauses,
    stale_declarations,
)
from rotary_spec_conformance.linear_attention import checks
from rotary_spec_conformance.linear_attention.context import COUNT, LinearAttentionContext
from rotary_spec_conformance.linear_attention.definition import Definition
from rotary_spec_conformance.linear_attention.explain import Explanation, explain
from rotary_spec_conformance.linear_attention.target import (
    LinearAttentionTarget,
    adapt_linear_attention,
)
from rotary_spec_conformance.registry import LINEAR_ATTENTION_CLAUSES
from rotary_spec_conformance.results import Report

assert checks  # imported for its clauses


@dataclass(frozen=True)
class LinearAttentionReport(Report):
    """A `Report` that also says what the target computes, as far as its weights show it."""

    computes: Explanation

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "computes": asdict(self.computes)}


def check_linear_attention(
    target: LinearAttentionTarget | Any,
    spec: rs.RotarySpec,
    *,
    feature_map: AnyFeatureMap = "elu+1",
    causal: bool = True,
    eps: float = 0.0,
    framework: str | Framework | None = None,
    dtypes: Sequence[str] | None = None,
    max_position: int | None = None,
    quick: bool = False,
    expected_failures: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> LinearAttentionReport:
    """Is an implementation linear attention with RoPE, as RoFormer Eq. 19 has it?

    Linear attention is linear in the values: one-hot ones recover the weight of every key for every
    query, and what is compared are these weights, term by term.

    Parameters
    ----------
    target : LinearAttentionTarget or callable
        ``f(q, k, v, positions) -> out``, arrays of shape (batch, heads, seq, dim). A callable goes
        through `adapt_linear_attention`, with ``framework`` and ``options``; where it has an
        attribute ``step``, that is its recurrent form.
    spec : RotarySpec
        What rotates the features; its ``head_dim`` is their number.
    feature_map : str, FeatureMap or pair of callables
        As for `rotary_spec.linear_attention`; applied to NumPy arrays.
    causal : bool
    eps : float
        What the target says it adds to the denominator.
    framework : {"numpy", "torch", "jax", "cupy", "mlx"}, Framework or None
        None: inferred.
    dtypes : sequence of str or None
        None: all that the target takes; bfloat16 NumPy arrays only where it declares them.
    max_position : int or None
        Positions below it must be right; None: 2^31, or what the target declares.
    quick : bool
        Fewer dtypes.
    expected_failures : mapping or None
        Known deviations, clause id to reason.
    progress : callable or None
        Called as ``progress(clause, done, total)`` before each check.

    Returns
    -------
    LinearAttentionReport
        A `Report`; its ``computes`` says what the weights show the target to compute.

    Raises
    ------
    TargetError
        If the target cannot be adapted, or no dtype is left.
    SpecError, DtypeError
        If the feature map is not known, or eps is negative.

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import check_linear_attention
    >>> spec = rs.RotarySpec(head_dim=8)
    >>> def attend(q, k, v, positions):
    ...     return rs.linear_attention(q, k, v, positions, spec, causal=True)
    >>> check_linear_attention(attend, spec, framework="numpy").ok
    True
    """
    started = time.perf_counter()
    if not isinstance(spec, rs.RotarySpec):
        raise TargetError(f"spec must be a RotarySpec, got {spec!r}")
    if getattr(spec, "sections", None) is not None:
        raise TargetError("spec: linear attention is checked for positions on one axis only")
    if not isinstance(target, LinearAttentionTarget):
        target = adapt_linear_attention(target, spec=spec, framework=framework, **options)
    elif options or framework:
        given = ", ".join([*options, *(["framework"] if framework else [])])
        raise TargetError(f"{given}: only for targets that are adapted")
    expected = known_failures(expected_failures, LINEAR_ATTENTION_CLAUSES)
    declared = check_options(spec, feature_map, "unrotated", eps, None)
    definition = Definition(spec, declared.feature_map, causal, declared.eps)
    if max_position is not None and not COUNT <= max_position <= LIMIT:
        raise TargetError(f"max_position must lie in {COUNT} .. 2**31, got {max_position}")
    limit = min(max_position or LIMIT, target.max_position or LIMIT)
    if limit < COUNT:
        raise TargetError(f"{target.name} serves {limit} positions, the checks need {COUNT}")
    target = replace(target, dtypes=chosen_dtypes(target, dtypes, quick))
    context = LinearAttentionContext(target, definition, limit, quick)
    results = run_clauses(LINEAR_ATTENTION_CLAUSES, context, expected, progress)
    with np.errstate(all="ignore"):
        found = explain(context)
    kind = "causal" if causal else "bidirectional"
    shown = f"feature map {definition.feature_map.name}, {kind}{f', eps {eps:g}' if eps else ''}"
    return LinearAttentionReport(
        target=target.name,
        about=f"{target.about}; {shown}" if target.about else shown,
        spec=spec,
        framework=target.framework.name,
        versions=target.versions,
        results=results,
        grades=[],
        findings=[*stale_declarations(results, expected), f"computes: {found}"],
        seconds=time.perf_counter() - started,
        computes=found,
    )
