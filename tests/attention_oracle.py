"""Attention written from the paper a second time, in float64, and how far a sum may be off."""

from __future__ import annotations

from typing import Any

import numpy as np

import rotary_spec as rs
from tests import oracle


def elu_plus_one(x: Any) -> Any:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


FEATURES = {"elu+1": (elu_plus_one, elu_plus_one), "softmax": (softmax, np.exp)}


def features(name_or_map: Any, q: Any, k: Any) -> tuple[Any, Any]:
    """phi(q) and phi(k): here for the named maps, by their own callables for the others."""
    if isinstance(name_or_map, str):
        of_query, of_key = FEATURES[name_or_map]
    else:
        of_query, of_key = name_or_map.query, name_or_map.key
    return of_query(q), of_key(k)


def visible(q: Any, k: Any, causal: bool, key_mask: Any = None) -> Any:
    """(..., heads, queries, keys); causal by index."""
    seen = np.ones((*q.shape[:-1], k.shape[-2]), dtype=bool)
    if causal:
        seen &= np.tri(q.shape[-2], k.shape[-2], dtype=bool)
    if key_mask is not None:
        spread = np.broadcast_to(key_mask, k.shape[:-1])
        seen &= np.repeat(spread, q.shape[-3] // k.shape[-3], axis=-2)[..., None, :]
    return seen


def grouped(k: Any, v: Any, q: Any) -> tuple[Any, Any]:
    times = q.shape[-3] // k.shape[-3]
    return np.repeat(k, times, axis=-3), np.repeat(v, times, axis=-3)


def linear_attention(
    q: Any,
    k: Any,
    v: Any,
    positions: Any,
    spec: rs.RotarySpec,
    seen: Any,
    feature_map: Any,
    key_positions: Any = None,
) -> tuple[Any, Any]:
    """Eq. 19, and sum |terms| / denominator: what every rounding error is relative to."""
    k, v = grouped(k, v, q)
    phi_q, phi_k = features(feature_map, q, k)
    turned_q = oracle.rotate(phi_q, positions, spec)
    turned_k = oracle.rotate(phi_k, positions if key_positions is None else key_positions, spec)
    numerator = np.where(seen, turned_q @ np.swapaxes(turned_k, -1, -2), 0.0) @ v
    total = np.where(seen, phi_q @ np.swapaxes(phi_k, -1, -2), 0.0).sum(axis=-1, keepdims=True)
    large_q, large_k = (np.maximum(oracle.weights(phi, spec), phi) for phi in (phi_q, phi_k))
    terms = np.where(seen, large_q @ np.swapaxes(large_k, -1, -2), 0.0) @ np.abs(v)
    divisor = np.where(total == 0, 1.0, total)
    return numerator / divisor, terms / divisor


def roundings(feature_map: Any, x: Any) -> float:
    """By how many unit roundoffs a feature may be off, relatively.

    elu+1 and the softmax pair: an exponential within 4 u, of a difference of at most 16, and a
    division. FAVOR+: its exponent is a sum of head_dim products and a square, and an error of it
    is a relative one of the exponential.
    """
    if isinstance(feature_map, str):
        return 24.0
    directions = np.abs(feature_map.query.directions)
    x = feature_map.query.scale * np.abs(x)
    exponent = (x @ directions.T).max(initial=0) + (x * x).sum(axis=-1).max(initial=0)
    return 24.0 + (x.shape[-1] + 4) * float(exponent)


def bound(
    terms: Any, length: int, chunk: int, feature_map: Any, q: Any, k: Any, u: float, features: int
) -> Any:
    """How far chunked linear attention may be from `linear_attention`.

    Numerator and denominator are each off by one u of ``terms`` for every rounding on the way:
    those of both features, 8 for both rotations, the additions of two nested sums (features, and
    a chunk or the chunks before it), and 8 for products, division and what is second order.
    """
    depth = 2 * features + chunk + -(-length // chunk) + 16
    depth += roundings(feature_map, q) + roundings(feature_map, k)
    return 2 * depth * u * terms
