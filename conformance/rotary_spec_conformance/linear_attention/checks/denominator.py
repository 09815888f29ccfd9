"""LATT-8 and 9: what the numerator is divided by. Eq. 19 does not rotate it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import LinearAttentionContext, Measured
from rotary_spec_conformance.linear_attention.explain import (
    UNROTATED,
    added,
    find_denominator,
    find_numerator,
)
from rotary_spec_conformance.registry import NotRun, Outcome


@clause("LATT-8", "the denominator is not rotated", needs=("LATT-4", "LATT-7"))
def unrotated(context: LinearAttentionContext, dtype: str) -> Outcome:
    """What divides the numerators, row by row, against sum_n φ(q) · φ(k).

    Also where the sum of the rotated weights changes its sign.
    """
    outcome = _against_the_definition(context.plain, context.swinging)
    if outcome.holds:
        return outcome
    feature_map = context.definition.feature_map
    turned = find_numerator(context, feature_map)
    found = find_denominator(context, feature_map, turned[1]) if turned else None
    lowest = min(m.denominators.min() for m in (context.plain, context.swinging))
    reached = f", which can vanish (here one is {lowest:.2g})" if lowest < 0 else ""
    message = (
        f"the denominator is: {found}{reached}. The spec's is the {UNROTATED}, without the rotation"
        if found and found != UNROTATED
        else f"the denominator is not the {UNROTATED}"
    )
    return replace(outcome, message=message)


@clause("LATT-9", "nothing undeclared is added to the denominator", needs=("LATT-8",))
def eps(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Features of inputs around -8 are so small that an eps or a lower limit shows."""
    smallest = float(context.faint.terms.products.sum(-1).min())
    if not smallest > 0:
        raise NotRun("the features are zero where inputs are around -8")
    outcome = _against_the_definition(context.faint)
    if outcome.holds:
        return outcome
    feature_map, declared = context.definition.feature_map, context.definition.eps
    turned = find_numerator(context, feature_map)
    value = added(context, feature_map, turned[1])[0] if turned else np.nan
    message = (
        f"denominators of about {smallest:.2g} are off by {value:.2g}: is an eps of {value:.1g} "
        f"added, where {declared:g} is declared? (eps= declares it)"
    )
    return replace(outcome, message=message)


def _against_the_definition(*measured: Measured) -> Outcome:
    """Relative deviation of the denominators used, over what the weights can tell of them."""
    return worst(
        np.stack([m.denominators / m.terms.denominators - 1 for m in measured]),
        np.stack([m.known_to(m.terms.denominators) for m in measured]),
        "rel",
        lambda i: {"query": i[1]},
    )
