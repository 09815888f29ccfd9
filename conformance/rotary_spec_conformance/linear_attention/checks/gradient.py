"""LATT-17: gradients of Eq. 19."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.form import SHAPE
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import LinearAttentionContext
from rotary_spec_conformance.linear_attention.definition import (
    Definition,
    feature_roundings,
    jacobian,
    pair_lengths,
)
from rotary_spec_conformance.probe import Floats, Ints, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome

SEQ = SHAPE[2]
_STEP = 1e-5  # of central differences in float64: truncation and rounding are about 1e-10


@clause("LATT-17", "gradients are those of Eq. 19", needs=("LATT-10",))
def gradient(context: LinearAttentionContext, dtype: str) -> Outcome:
    """With respect to q, k and v, against central differences of the definition in float64."""
    probe = context.fresh(dtype)
    framework = probe.framework
    if not framework.differentiable:
        raise NotRun(f"{framework.name} has no automatic differentiation")
    if not context.target.differentiable:
        raise NotRun("declared not to be differentiable")
    ids = np.arange(SEQ)
    inputs = context.inputs(dtype, 1, 1, SEQ)
    g = context.rounded(context.random(1, 1, SEQ, context.target.values, seed=9), dtype)
    places = probe.places(ids)
    instance: Any = probe.instance
    differences, rooms, names = [], [], []
    q, k, v = (x[0, 0] for x in inputs)
    bounds = _bounds(context.definition, q, k, v, g[0, 0], ids, dtype)
    for index, name in enumerate("qkv"):

        def function(x: Any, at: int = index) -> Any:
            native = [probe.native(y) for y in inputs]
            native[at] = x
            return instance(*native, places)

        x = probe.native(inputs[index])
        try:
            got = framework.gradient(function, x, framework.asarray(g, dtype))
        except Exception as error:  # what severs a gradient differs by framework
            raise TargetMisbehaved(
                f"the gradient does not reach {name}: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        measured = probe.read(got, inputs[index].shape)[0, 0]
        if not measured.any():
            raise TargetMisbehaved(f"the gradient does not reach {name}: it is zero")
        expected = _differences(context.definition, inputs, g, ids, index)
        differences.append((measured - expected).ravel())
        rooms.append(bounds[index].ravel())
        names += [f"gradient of {name}"] * measured.size
    return worst(
        np.concatenate(differences),
        np.concatenate(rooms),
        "abs",
        lambda i: {"call": names[i[0]]},
        "the backward pass is not that of Eq. 19: does it leave out the denominator, or the "
        "rotation?",
    )


def _differences(
    definition: Definition, inputs: tuple[Floats, ...], g: Floats, ids: Ints, index: int
) -> Floats:
    """Central differences of <out, g> by one of the inputs, (seq, dim), all in one batch."""
    x = inputs[index]
    steps = _STEP * np.eye(x.size).reshape(x.size, 1, *x.shape[-2:])
    values = []
    for sign in (1, -1):
        moved = [np.broadcast_to(y, (len(steps), *y.shape[1:])) for y in inputs]
        moved[index] = x + sign * steps
        q, k, v = moved
        values.append((definition(q, k, v, ids) * g).sum((-3, -2, -1)))
    slopes: Floats = (values[0] - values[1]) / (2 * _STEP)
    return slopes.reshape(x.shape[-2:])


def _bounds(
    definition: Definition, q: Floats, k: Floats, v: Floats, g: Floats, ids: Ints, dtype: str
) -> list[Floats]:
    """Bounds for q, k and v: the sum of the absolute terms, times the roundings of each.

    With s = g_m . v_n and t = g_m . out_m, the gradient by a query's features is
    sum_n (s R_{n-m} phi(k_n) - t phi(k_n)) / D_m, and likewise for keys; the map's derivatives
    carry it to q and k. A term is rounded with the features, the rotation, the sums over keys,
    features and values, and a dozen products and quotients.
    """
    u = tolerances.unit_roundoff(dtype)
    terms = definition.terms(q, k, ids, u=u)
    roundings = len(ids) + 2 * terms.features + v.shape[-1] + 12
    size = np.abs(g) @ np.abs(v).T + (np.abs(g) * np.abs(terms.weights @ v)).sum(-1)[:, None]
    size = size * (terms.magnitudes > 0) / terms.denominators[:, None]
    maps = definition.feature_map
    phi = {"query": maps.query(q), "key": maps.key(k)}
    errors = {side: feature_roundings(maps, side, x, phi[side])
              for side, x in (("query", q), ("key", k))}  # fmt: skip
    relative = sum(float((errors[side] / np.abs(phi[side])).max()) for side in phi)
    bounds = []
    for side, other, x, by in (("query", "key", q, size), ("key", "query", k, size.T)):
        # The rotation mixes the lanes of a pair: its length bounds both.
        whole = by @ pair_lengths(phi[other], definition.spec).max(-1)
        slopes = np.abs(jacobian(getattr(maps, side), x))
        rounded = (roundings + relative) * slopes + errors[side][..., None] * (slopes > 0)
        bounds.append(u * whole[:, None] * rounded.sum(-2))
    values = (terms.weight_room() + roundings * u * np.abs(terms.weights)).T @ np.abs(g)
    return [*bounds, values]
