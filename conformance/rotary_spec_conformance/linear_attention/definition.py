"""The oracle: RoFormer Eq. 19 in float64, term by term, and how far arithmetic may be from it.

Notation: u the unit roundoff of the arithmetic, w that of the sums (float32's, whatever the input),
N = A^2 (R_m phi(q)) . (R_n phi(k)) a numerator's weight, P = phi(q) . phi(k) a denominator's,
h = sum_i |phi(q)_i| |phi(k)_i| over pairs (their lengths), so that |N| <= A^2 h; D = sum_n P.

*Features.* |error of phi| <= u * `feature_roundings`.

*Rotation.* Each rotated pair is off by sqrt(2) 5u of its length, and by its length times the
error of its angle: |error of N| <= A^2 sum_i |phi(q)_i| |phi(k)_i| (10 sqrt(2) u + angles), and
what the features' errors make of it.

*Sums.* In whatever order features and keys are summed, and whatever partial sums there are,
(keys + features) w of the sum of the absolute terms. Weights and states may each be rounded to u
once before they are multiplied.

*The result.* sum_n |error of N| |v| / D, and |out| times the relative error of D and 3u for what
is rounded at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import rotary_spec as rs
from rotary_spec.feature_maps import FeatureMap
from rotary_spec.layouts import input_lanes
from rotary_spec_conformance.probe import Floats
from rotary_spec_conformance.tolerances import UNIT_ROUNDOFF, float32_angle

SUMS = UNIT_ROUNDOFF["float32"]
_ROTATION = 10 * np.sqrt(2)
_STEP = 1e-5  # of finite differences: truncation and rounding are both about 1e-10


@dataclass(frozen=True)
class Terms:
    """Eq. 19 for q and k of shape (..., queries, dim) and (..., keys, dim).

    Arrays have shape (..., queries, keys); what a query may not see is zero in all of them.

    Attributes
    ----------
    numerators, products : array
        N and P.
    magnitudes : array
        A^2 h.
    numerator_errors, product_errors : array
        What arithmetic with unit roundoff ``u`` may make of N and P, before any sum.
    denominators : array, shape (..., queries)
        D, with the declared eps.
    features : int
    u : float
    """

    numerators: Floats
    products: Floats
    magnitudes: Floats
    numerator_errors: Floats
    product_errors: Floats
    denominators: Floats
    features: int
    u: float

    @property
    def weights(self) -> Floats:
        """What the results are made of: N / D."""
        return np.asarray(self.numerators / self.denominators[..., None])

    @property
    def sums(self) -> float:
        """Relative to the absolute terms, what a sum over features and keys may be off by."""
        keys: int = self.numerators.shape[-1]
        return (keys + self.features) * SUMS

    @property
    def denominator_errors(self) -> Floats:
        """Relative to D."""
        total = np.abs(self.products).sum(-1)
        error = self.product_errors.sum(-1) + (self.sums + self.u) * total
        return np.asarray(error / np.abs(self.denominators))

    def room(self, v: Floats, denominators: Floats | None = None) -> Floats:
        """Bound on the error of the results for values ``v``, shape (..., queries, value_dim).

        ``denominators`` are those that the target uses, where it has its own.
        """
        own = np.abs(self.denominators if denominators is None else denominators)[..., None]
        errors = self.numerator_errors + (self.sums + 2 * self.u) * self.magnitudes
        size = np.abs(self.numerators @ v) / own
        relative = self.denominator_errors[..., None] + 3 * self.u
        return np.asarray(errors @ np.abs(v) / own + size * relative)

    def weight_room(self, denominators: Floats | None = None) -> Floats:
        """`room` for one-hot values: the bound on the error of each weight."""
        return self.room(np.eye(self.numerators.shape[-1]), denominators)


@dataclass(frozen=True)
class Definition:
    """What a target is held against.

    Attributes
    ----------
    spec : RotarySpec
    feature_map : FeatureMap
    causal : bool
    eps : float
        Added to the denominator.
    """

    spec: rs.RotarySpec
    feature_map: FeatureMap
    causal: bool
    eps: float = 0.0

    def __call__(self, q: Floats, k: Floats, v: Floats, positions: npt.ArrayLike) -> Floats:
        """The result itself, by the reference."""
        return np.asarray(
            rs.linear_attention(
                np.asarray(q, dtype=np.float64),
                np.asarray(k, dtype=np.float64),
                np.asarray(v, dtype=np.float64),
                np.asarray(positions),
                self.spec,
                feature_map=self.feature_map,
                causal=self.causal,
                eps=self.eps,
            )
        )

    def terms(
        self,
        q: Floats,
        k: Floats,
        positions: npt.ArrayLike,
        *,
        u: float = SUMS,
        angles: bool = True,
        rows: slice = slice(None),
    ) -> Terms:
        """The terms and their bounds.

        Parameters
        ----------
        q, k : arrays, shape (..., seq, dim)
        positions : integers, shape (seq,)
        u : float
            Unit roundoff of the arithmetic.
        angles : bool
            Whether angles may be off by what float32 angles are.
        rows : slice
            Which queries; all keys count whatever is taken.
        """
        ids = np.asarray(positions)
        q, query_ids = q[..., rows, :], ids[rows]
        visible = np.ones((len(ids), len(ids)), dtype=bool)
        if self.causal:
            visible = np.tri(len(ids), dtype=bool)
        visible = visible[rows]
        phi_q, phi_k = self.feature_map.query(q), self.feature_map.key(k)
        error_q = u * feature_roundings(self.feature_map, "query", q, phi_q)
        error_k = u * feature_roundings(self.feature_map, "key", k, phi_k)
        rotated_q, rotated_k = (
            rs.rotate(phi, places, self.spec) for phi, places in ((phi_q, query_ids), (phi_k, ids))
        )
        gain = rs.attention_factor(self.spec) ** 2
        length_q, length_k = (pair_lengths(phi, self.spec) for phi in (phi_q, phi_k))
        moved_q, moved_k = (pair_lengths(error, self.spec) for error in (error_q, error_k))
        magnitudes = gain * _dot(length_q, length_k)
        errors = gain * (_dot(moved_q, length_k) + _dot(length_q, moved_k))
        errors = errors + _ROTATION * u * magnitudes
        if angles:
            angle_q, angle_k = (_angles(self.spec, places) for places in (query_ids, ids))
            errors = errors + gain * (
                _dot(length_q * angle_q, length_k) + _dot(length_q, length_k * angle_k)
            )
        products = np.where(visible, _dot(phi_q, phi_k), 0.0)
        product_errors = _dot(error_q, np.abs(phi_k)) + _dot(np.abs(phi_q), error_k)
        return Terms(
            numerators=np.where(visible, _dot(rotated_q, rotated_k), 0.0),
            products=products,
            magnitudes=np.where(visible, magnitudes, 0.0),
            numerator_errors=np.where(visible, errors, 0.0),
            product_errors=np.where(visible, product_errors, 0.0),
            denominators=products.sum(-1) + self.eps,
            features=phi_q.shape[-1],
            u=u,
        )


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(a @ np.swapaxes(b, -1, -2))


def pair_lengths(x: Floats, spec: rs.RotarySpec) -> Floats:
    """Lengths of the pairs, then the magnitudes of the lanes that are not rotated."""
    first, second = (list(lanes) for lanes in input_lanes(spec))
    rest = [lane for lane in range(spec.head_dim) if lane not in {*first, *second}]
    return np.concatenate([np.hypot(x[..., first], x[..., second]), np.abs(x[..., rest])], axis=-1)


def _angles(spec: rs.RotarySpec, positions: npt.ArrayLike) -> Floats:
    """Bounds of float32 angles in the order of `pair_lengths`, shape (positions, ...)."""
    bound = float32_angle(spec, np.atleast_1d(positions))
    return np.pad(bound, ((0, 0), (0, spec.head_dim - 2 * bound.shape[-1])))


def feature_roundings(feature_map: FeatureMap, side: str, x: Floats, phi: Floats) -> Floats:
    """Bound on the error of the features, in units of the roundoff.

    elu + 1: an exponential within 2, an addition and a store within 1 each; ``elu(x) + 1`` rounds
    relative to 1 where it is far below. softmax and exp: what is subtracted first is rounded, and
    the exponential amplifies that; the sum over d lanes adds d. Any other map: each lane may be a
    sum over all d inputs, whose roundings its derivatives carry on.
    """
    if feature_map.name == "elu+1":
        return 4 * np.maximum(1.0, phi)
    width = x.shape[-1]
    if feature_map.name == "softmax":
        largest = np.abs(x).max(-1, keepdims=True)
        return np.asarray(phi * (np.abs(x) + largest + 4 + (width if side == "query" else 0)))
    function: Callable[[Any], Any] = getattr(feature_map, side)
    carried = np.einsum("...fi,...i->...f", np.abs(jacobian(function, x)), np.abs(x))
    return np.asarray((2 * width + 6) * (np.abs(phi) + carried))


def jacobian(function: Callable[[Any], Any], x: Floats) -> Floats:
    """Central differences of a row by row function, shape (..., features, dim)."""
    steps = _STEP * np.eye(x.shape[-1])
    higher, lower = (function(x[..., None, :] + sign * steps) for sign in (1, -1))
    return np.swapaxes((higher - lower) / (2 * _STEP), -1, -2)
