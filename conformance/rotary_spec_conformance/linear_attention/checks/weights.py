"""LATT-4 to 7: which keys a query sees, and the numerator of Eq. 19.

The weights are recovered from one-hot values; `explain` says how features, numerator and
denominator are told apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import COUNT, LinearAttentionContext
from rotary_spec_conformance.linear_attention.explain import (
    AS_DECLARED,
    find_features,
    find_numerator,
    row_shares,
)
from rotary_spec_conformance.registry import NotRun, Outcome

SHIFTS = (1, 10, 100)
_WEIGHTS = ("LATT-1", "LATT-2", "LATT-3")


@clause("LATT-4", "a query sees the keys it may see", needs=_WEIGHTS)
def visible(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Causal: no later key, neither in the numerator nor in the denominator; and its own."""
    weights = context.plain.weights
    later = np.triu(weights, 1)
    if not context.definition.causal:
        hidden = float(np.mean(later[np.triu_indices(COUNT, 1)] == 0))
        return Outcome(
            hidden,
            0.0,
            "rel",
            message=f"{hidden:.0%} of the later keys have no weight: is it causal?",
        )
    if not np.diagonal(weights).all():
        return Outcome(1.0, 0.0, message="a query does not see the key of its own token")
    leak = worst(
        later, 0.0, "abs", lambda i: {"query": i[0], "key": i[1]}, "a query sees later keys"
    )
    return leak if not leak.holds else _future(context, dtype)


def _future(context: LinearAttentionContext, dtype: str) -> Outcome:
    """What comes later is changed, and what came before compared."""
    plain, half = context.plain, COUNT // 2
    q, k = plain.q.copy(), plain.k.copy()
    others = context.inputs(dtype, COUNT, seed=1)
    q[half:], k[half:] = others[0][half:], 3 * others[1][half:]
    changed = context.fresh(dtype).weights(q, k, plain.positions)
    return worst(
        (changed - plain.weights)[:half],
        2 * plain.room[:half],
        "abs",
        lambda i: {"query": i[0], "key": i[1]},
        "later keys have no weight, but change those of earlier ones: is the denominator summed "
        "over the whole sequence?",
    )


@clause("LATT-5", "the features are those of the feature map", needs=_WEIGHTS)
def features(context: LinearAttentionContext, dtype: str) -> Outcome:
    """At one position nothing is turned; a row divided by its sum knows no denominator."""
    if not context.repeats:
        raise NotRun("takes no two tokens at one position")
    together, terms = context.together, context.together.terms
    expected = row_shares(terms.numerators, together.seen)
    errors = terms.numerator_errors + (terms.sums + 3 * terms.u) * terms.magnitudes
    total = np.abs(terms.numerators.sum(-1, keepdims=True))
    outcome = worst(
        row_shares(together.weights, together.seen) - expected,
        (errors + np.abs(expected) * errors.sum(-1, keepdims=True)) / total,
        "rel",
        lambda i: {"query": i[0], "key": i[1]},
    )
    if outcome.holds:
        return outcome
    declared = context.definition.feature_map.name
    found, _ = find_features(context)
    if found is not None:
        message = f"the feature map is {found}, not {declared}"
    elif np.array_equal(together.weights, context.plain.weights):
        message = (
            "tokens at one position get the weights of positions 0, 1, ...: are the positions used?"
        )
    else:
        message = (
            f"with every token at one position the weights are not those of {declared} features"
        )
    return replace(outcome, message=message)


@clause("LATT-6", "weights depend on m - n only", needs=_WEIGHTS)
def relative(context: LinearAttentionContext, dtype: str) -> Outcome:
    """The whole matrix stays when all positions move (RoFormer Eq. 11, 16)."""
    plain = context.plain
    shifts = [s for s in SHIFTS if s + COUNT <= context.max_position]
    if not shifts:
        raise NotRun(f"only {context.max_position} positions are served")
    moved = [context.measure(plain.positions + shift) for shift in shifts]
    return worst(
        np.stack([m.weights - plain.weights for m in moved]),
        np.stack([m.terms.weight_room(plain.denominators) + plain.room for m in moved]),
        "abs",
        lambda i: {"call": f"all positions moved by {shifts[i[0]]}", "query": i[1], "key": i[2]},
        "the weights change when all tokens move together: they depend on absolute positions",
    )


@clause("LATT-7", "the numerator is Rφ(q)·Rφ(k)", needs=("LATT-5",))
def numerator(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Every row of the weights points where the numerators of Eq. 19 do, whatever divides it."""
    plain = context.plain
    used = plain.denominators
    outcome = worst(
        np.where(plain.seen, plain.weights, 0.0) - plain.terms.numerators / used[:, None],
        2 * plain.room,
        "abs",
        lambda i: {"query": i[0], "key": i[1]},
    )
    if outcome.holds:
        return outcome
    found = find_numerator(context, context.definition.feature_map)
    message = (
        f"the numerator is {found[0]}; the spec's is {AS_DECLARED}"
        if found and found[0] != AS_DECLARED
        else f"the numerator is not {AS_DECLARED}: other frequencies, pairs or positions?"
    )
    return replace(outcome, message=message)
