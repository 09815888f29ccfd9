"""The terms of linear attention: features, what is masked, and the division by the denominator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from rotary_spec._array import Array, Namespace, dtype_name, holds, namespace_of
from rotary_spec.arguments import check_spec
from rotary_spec.attention_arguments import check_mask, group_size, repeat_heads
from rotary_spec.errors import DenominatorError, DtypeError, ShapeError, SpecError
from rotary_spec.feature_maps import FeatureMap, feature_map
from rotary_spec.spec import RotarySpec

Denominator = Literal["unrotated", "rotated", "none"]
DENOMINATORS: tuple[Denominator, ...] = ("unrotated", "rotated", "none")
AnyFeatureMap = str | FeatureMap | tuple[Callable[[Array], Array], Callable[[Array], Array]]


class LinearAttentionOptions(NamedTuple):
    """Which linear attention: everything that is not an array. Hashable."""

    spec: RotarySpec
    feature_map: FeatureMap
    denominator: Denominator
    eps: float
    seq_len: int | None


def check_options(
    spec: RotarySpec,
    feature_map_: AnyFeatureMap,
    denominator: Denominator,
    eps: float,
    seq_len: int | None,
) -> LinearAttentionOptions:
    """The checked options.

    Raises
    ------
    DtypeError, SpecError
        If one is not what it may be.
    """
    check_spec(spec)
    if denominator not in DENOMINATORS:
        raise SpecError(
            f"denominator must be one of {', '.join(map(repr, DENOMINATORS))}, got {denominator!r}"
        )
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < math.inf:
        raise SpecError(f"eps must be a finite number, 0 or more, got {eps!r}")
    return LinearAttentionOptions(spec, feature_map(feature_map_), denominator, float(eps), seq_len)


def check_key_mask(key_mask: Array | None, k: Array) -> None:
    """Check a padding mask against the keys, of shape (..., key_heads, keys, features)."""
    if key_mask is not None:
        namespace_of(k=k, key_mask=key_mask)
        check_mask(key_mask, tuple(k.shape[:-1]), "key_mask")


def attending(
    q: Array, k: Array, key_mask: Array | None, visible: Array | None, xp: Namespace
) -> Array | None:
    """Which queries attend to at least one key, broadcasting to (..., heads, queries).

    None where all do.
    """
    if not k.shape[-2]:
        return xp.zeros((1,), dtype=xp.bool)
    if key_mask is None and visible is None:
        return None
    if key_mask is not None:
        keys = xp.broadcast_to(key_mask, tuple(k.shape[:-1]))
        keys = repeat_heads(keys, group_size(q, k), -2, xp)[..., None, :]
        visible = keys if visible is None else keys & visible
    return xp.any(visible, axis=-1)


def query_features(q: Array, options: LinearAttentionOptions) -> Array:
    """phi(q), not rotated."""
    return _features(options.feature_map.query, q, options)


def key_features(
    k: Array, v: Array, key_mask: Array | None, options: LinearAttentionOptions, xp: Namespace
) -> tuple[Array, Array]:
    """phi(k), not rotated, and v: zeros for masked keys, whatever these hold."""
    if key_mask is None:
        return _features(options.feature_map.key, k, options), v
    counts = xp.broadcast_to(key_mask, tuple(k.shape[:-1]))[..., None]
    k, v = (xp.where(counts, x, xp.zeros_like(x)) for x in (k, v))
    phi = _features(options.feature_map.key, k, options)
    return xp.where(counts, phi, xp.zeros_like(phi)), v


def _features(phi: Callable[[Array], Array], x: Array, options: LinearAttentionOptions) -> Array:
    features = phi(x)
    namespace_of(x=x, features=features)
    name, expected = options.feature_map.name, options.spec.head_dim
    if dtype_name(features) != dtype_name(x):
        raise DtypeError(
            f"feature_map {name!r} must keep the dtype {dtype_name(x)}, gave {dtype_name(features)}"
        )
    if features.shape[:-1] != x.shape[:-1]:
        raise ShapeError(
            f"feature_map {name!r} must keep all axes but the last, "
            f"made {tuple(features.shape)} of {tuple(x.shape)}"
        )
    if features.shape[-1] != expected:
        raise ShapeError(
            f"feature_map {name!r} gives {features.shape[-1]} features but spec.head_dim is "
            f"{expected}: the rotation acts on features (Eq. 19). "
            f"Hint: RotarySpec(head_dim={features.shape[-1]})."
        )
    return features


def weighted_sums(
    queries: tuple[Array, Array],
    keys: tuple[Array, Array, Array],
    visible: Array | None,
    options: LinearAttentionOptions,
    xp: Namespace,
) -> tuple[Array, Array]:
    """Numerator and denominator of Eq. 19, from phi(q), R phi(q) and phi(k), R phi(k), v."""
    phi_q, rotated_q = queries
    times = group_size(phi_q, keys[0])
    phi_k, rotated_k, v = (repeat_heads(x, times, -3, xp) for x in keys)
    rotated_weights = rotated_q @ xp.matrix_transpose(rotated_k)
    weights = phi_q @ xp.matrix_transpose(phi_k)
    if visible is not None:
        rotated_weights = xp.where(visible, rotated_weights, xp.zeros_like(rotated_weights))
        weights = xp.where(visible, weights, xp.zeros_like(weights))
    if options.denominator == "rotated":
        weights = rotated_weights
    return rotated_weights @ v, xp.sum(weights, axis=-1)


def denominators(
    total: Array, attends: Array | None, options: LinearAttentionOptions, xp: Namespace
) -> Array:
    """What to divide by: ``total`` and eps, and 1 where nothing is attended to."""
    total = total + options.eps
    return total if attends is None else xp.where(attends, total, xp.ones_like(total))


def divide(
    numerator: Array,
    total: Array,
    attends: Array | None,
    options: LinearAttentionOptions,
    xp: Namespace,
) -> Array:
    """The numerators over the denominators ``total``; zeros where nothing is attended to.

    Raises
    ------
    DenominatorError
        If an unrotated denominator is not positive and finite, as far as values can be seen.
    """
    if options.denominator == "none":
        return numerator
    total = denominators(total, attends, options, xp)
    check_denominators(total, options, xp)
    return numerator / total[..., None]


def check_denominators(total: Array, options: LinearAttentionOptions, xp: Namespace) -> None:
    """Raise `DenominatorError` where an unrotated one is not positive and finite."""
    if options.denominator != "unrotated" or holds(xp.all((total > 0) & (total < math.inf)), xp):
        return
    smallest: Any = xp.min(total)
    raise DenominatorError(
        f"the denominators of linear attention must be positive and finite, the smallest is "
        f"{float(getattr(smallest, 'detach', lambda: smallest)()):.6g} (eps = {options.eps:g}). "
        f"Feature map {options.feature_map.name!r} must give products that are positive. "
        "Hint: another feature map, or eps."
    )
