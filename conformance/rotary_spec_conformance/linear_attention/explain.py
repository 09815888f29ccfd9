"""Which features, which numerator and which denominator explain the weights that were measured.

Weights are N / D. With every token at one position, nothing is turned, and what D is cancels when
a row is divided by its sum: that shows the feature map. The direction of a row shows the numerator
whatever D is. With both known, D itself is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.feature_maps import FEATURE_MAPS, FeatureMap
from rotary_spec.spec import Layout
from rotary_spec_conformance.linear_attention.context import (
    LinearAttentionContext,
    Measured,
    denominators_of,
)
from rotary_spec_conformance.probe import Floats, Ints, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun
from rotary_spec_conformance.tolerances import unit_roundoff

Numerator = Callable[[Floats, Floats, Ints], Floats]
"""The numerators' weights for q, k and positions, of every key for every query."""

UNKNOWN = "not known"
AS_DECLARED = "Rφ(q)·Rφ(k)"
UNROTATED = "Σ φ(q)·φ(k)"


@dataclass(frozen=True)
class Explanation:
    """What a target computes, in words.

    Attributes
    ----------
    features, numerator, denominator, sees : str
    """

    features: str
    numerator: str
    denominator: str
    sees: str

    def __str__(self) -> str:
        return (
            f"features {self.features}; numerator {self.numerator}; "
            f"denominator {self.denominator}; {self.sees}"
        )


def explain(context: LinearAttentionContext) -> Explanation:
    """What explains the weights of the target; "not known" where nothing of what is tried does."""
    features, numerator, denominator = "as declared", UNKNOWN, UNKNOWN
    feature_map: FeatureMap | None = context.definition.feature_map
    with suppress(NotRun, TargetMisbehaved):  # implicit positions: take what is declared
        found, feature_map = find_features(context)
        features = found or UNKNOWN
    try:
        seen = sees(context.plain.weights)
        turned = find_numerator(context, feature_map) if feature_map else None
        if feature_map and turned:
            numerator = turned[0]
            denominator = find_denominator(context, feature_map, turned[1]) or UNKNOWN
            if denominator == UNROTATED:
                eps, room = added(context, feature_map, turned[1])
                denominator += f" + {eps:.1g}" if abs(eps) > room else ""
    except (NotRun, TargetMisbehaved):
        return Explanation(features, numerator, denominator, UNKNOWN)
    return Explanation(features, numerator, denominator, seen)


def sees(weights: Floats) -> str:
    """Which keys a query sees."""
    if not np.triu(weights, 1).any():
        return "causal" if np.diagonal(weights).any() else "causal, without the token itself"
    return "every key"


# Features ---------------------------------------------------------------------------------------


def _feature_maps(context: LinearAttentionContext) -> Iterator[tuple[str, FeatureMap]]:
    declared = context.definition.feature_map
    yield declared.name, declared
    softmax = FEATURE_MAPS["softmax"]

    def both(function: Any) -> FeatureMap:
        return FeatureMap(function, function)

    known = {
        "elu+1": FEATURE_MAPS["elu+1"],
        # A row shows the queries' features up to a factor: softmax and exp are the same there.
        "softmax or exp of q, exp of k": softmax,
        "softmax of q and k": both(softmax.query),
        "relu": both(lambda x: np.maximum(x, 0.0)),
        "relu squared": both(lambda x: np.maximum(x, 0.0) ** 2),
        "q and k themselves": both(lambda x: x),
    }
    yield from known.items()
    root = context.target.head_dim**0.5
    for name, pair in known.items():
        yield f"{name}, q / sqrt(dim)", FeatureMap(_of_scaled(pair.query, 1 / root), pair.key)


def _of_scaled(function: Callable[[Any], Any], scale: float) -> Callable[[Any], Any]:
    return lambda x: function(scale * x)


def row_shares(weights: Floats, seen: npt.NDArray[np.bool_]) -> Floats:
    """Each weight as a share of its row's sum, over what the declared kind of query sees."""
    kept = np.where(seen, weights, 0.0)
    with np.errstate(all="ignore"):
        return np.asarray(kept / kept.sum(-1, keepdims=True))


def find_features(context: LinearAttentionContext) -> tuple[str | None, FeatureMap | None]:
    """The feature map that explains the weights of tokens at one position."""
    together = context.together
    measured = row_shares(together.weights, together.seen)
    for name, candidate in _feature_maps(context):
        with np.errstate(all="ignore"):
            phi = candidate.query(together.q), candidate.key(together.k)
            if phi[0].shape[-1] != context.spec.head_dim:
                continue
            # Nothing turns here, but an attention factor scales the rotated lanes.
            q, k = (np.asarray(rs.rotate(x, together.positions, context.spec)) for x in phi)
            products = q @ k.T
        if _close(context, measured, row_shares(products, together.seen)):
            return name, candidate
    return None, None


# Numerator --------------------------------------------------------------------------------------


def _numerators(
    context: LinearAttentionContext, feature_map: FeatureMap
) -> Iterator[tuple[str, Numerator]]:
    spec = context.spec
    phi_q, phi_k = feature_map.query, feature_map.key
    other: Layout = "half" if spec.layout == "interleaved" else "interleaved"
    back = replace(spec, inverse=not spec.inverse)
    laid_out = replace(spec, layout=other, output_layout=None)

    def turned(x: Floats, ids: Ints, by: rs.RotarySpec = spec) -> Floats:
        return np.asarray(rs.rotate(x, ids, by))

    def both(by: rs.RotarySpec) -> Numerator:
        return lambda q, k, ids: turned(phi_q(q), ids, by) @ turned(phi_k(k), ids, by).T

    yield AS_DECLARED, both(spec)
    yield "φ(q)·φ(k), not rotated", lambda q, k, ids: phi_q(q) @ phi_k(k).T
    if context.target.head_dim == spec.head_dim:
        yield (
            "φ(Rq)·φ(Rk), rotated before the feature map",
            lambda q, k, ids: phi_q(turned(q, ids)) @ phi_k(turned(k, ids)).T,
        )
    yield (
        "Rφ(q)·φ(k), keys not rotated",
        lambda q, k, ids: turned(phi_q(q), ids) @ phi_k(k).T,
    )
    yield (
        "φ(q)·Rφ(k), queries not rotated",
        lambda q, k, ids: phi_q(q) @ turned(phi_k(k), ids).T,
    )
    yield f"{AS_DECLARED} in the {other} layout", both(laid_out)
    yield f"{AS_DECLARED}, rotated backwards", both(back)
    yield (
        "Rφ(q)·R⁻¹φ(k), keys rotated backwards",
        lambda q, k, ids: turned(phi_q(q), ids) @ turned(phi_k(k), ids, back).T,
    )


def find_numerator(
    context: LinearAttentionContext, feature_map: FeatureMap
) -> tuple[str, Numerator] | None:
    """The numerators in whose direction every row of the weights points."""
    plain = context.plain
    weights = np.where(plain.seen, plain.weights, 0.0)
    for name, numerator in _numerators(context, feature_map):
        within = np.where(plain.seen, numerator(plain.q, plain.k, plain.positions), 0.0)
        if _close(context, weights, within / denominators_of(weights, within)[:, None]):
            return name, numerator
    return None


# Denominator ------------------------------------------------------------------------------------


def find_denominator(
    context: LinearAttentionContext, feature_map: FeatureMap, numerator: Numerator
) -> str | None:
    """Which denominators explain the weights, where these are the numerators."""
    found: list[str] | None = None
    for measured in (context.plain, context.swinging):
        names = _fitting_denominators(context, measured, feature_map, numerator)
        found = names if found is None else [name for name in found if name in names]
    return found[0] if found else None


def _fitting_denominators(
    context: LinearAttentionContext,
    measured: Measured,
    feature_map: FeatureMap,
    numerator: Numerator,
) -> list[str]:
    everything = numerator(measured.q, measured.k, measured.positions)
    plain = feature_map.query(measured.q) @ feature_map.key(measured.k).T
    rotated, products = (np.where(measured.seen, x, 0.0) for x in (everything, plain))
    used, unrotated = denominators_of(measured.weights, rotated), products.sum(-1)
    ones = np.ones_like(unrotated)
    candidates = {
        UNROTATED: unrotated,
        "Σ of the numerator's own, rotated weights": rotated.sum(-1),
        "Σ of the rotated weights, as its absolute value": np.abs(rotated.sum(-1)),
        "Σ of the absolute rotated weights": np.abs(rotated).sum(-1),
        "length of the row of rotated weights": np.linalg.norm(rotated, axis=-1),
        f"{UNROTATED} over all keys, later ones too": plain.sum(-1),
        "Σ of all rotated weights, later ones too": everything.sum(-1),
        "none": ones,
        "none, but sqrt(dim)": ones * context.target.head_dim**0.5,
        "number of keys": measured.seen.sum(-1) * 1.0,
    }
    times = float(np.median(used / unrotated))
    candidates[f"{times:.3g} times the {UNROTATED}"] = times * unrotated
    return [
        name
        for name, candidate in candidates.items()
        if _close(context, used[:, None], candidate[:, None])
    ]


def added(
    context: LinearAttentionContext, feature_map: FeatureMap, numerator: Numerator
) -> tuple[float, float]:
    """What faint features show to be added to the denominator, and how well that is known."""
    faint = context.faint
    within = np.where(faint.seen, numerator(faint.q, faint.k, faint.positions), 0.0)
    products = np.where(faint.seen, feature_map.query(faint.q) @ feature_map.key(faint.k).T, 0.0)
    used, plain = denominators_of(faint.weights, within), products.sum(-1)
    row = int(np.argmin(plain))
    return float(used[row] - plain[row]), float(2 * plain[row] * faint.known_to(used)[row])


def _close(context: LinearAttentionContext, measured: Floats, candidate: Floats) -> bool:
    """Whether rows agree to a thousandth, or to what the dtype shows: candidates differ by more."""
    allowed = max(1e-3, 40 * unit_roundoff(context.dtypes[0]))
    with np.errstate(all="ignore"):
        off = np.linalg.norm(measured - candidate, axis=-1)
        return bool(np.all(off <= allowed * np.linalg.norm(candidate, axis=-1)))
