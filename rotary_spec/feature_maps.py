"""Feature maps of linear attention: what phi of the queries and the keys may be (Eq. 18)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rotary_spec._array import Array, device_of, namespace_of
from rotary_spec.errors import DtypeError, ShapeError, SpecError
from rotary_spec.spec import integer


@dataclass(frozen=True)
class FeatureMap:
    """The pair of functions that take the place of the softmax: sim(q, k) = phi_q(q) . phi_k(k).

    Parameters
    ----------
    query, key : callable
        From an array of shape (..., seq, head_dim) to one of shape (..., seq, features), of the
        same framework and dtype: float32, or float64 for float64 input. Row by row: what it gives
        for one token must not depend on another.
    name : str

    Notes
    -----
    Where the denominator of linear attention is the paper's, the products must be positive.
    """

    query: Callable[[Array], Array]
    key: Callable[[Array], Array]
    name: str = "custom"


def _elu_plus_one(x: Array) -> Array:
    # exp sees no positive argument, so that neither it nor its gradient overflows.
    xp = namespace_of(x=x)
    zero = xp.zeros((), dtype=x.dtype, device=device_of(x))
    return xp.exp(xp.minimum(x, zero)) + xp.maximum(x, zero)


def _softmax(x: Array) -> Array:
    xp = namespace_of(x=x)
    weights = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _exp(x: Array) -> Array:
    return namespace_of(x=x).exp(x)


FEATURE_MAPS = {
    "elu+1": FeatureMap(_elu_plus_one, _elu_plus_one, "elu+1"),
    "softmax": FeatureMap(_softmax, _exp, "softmax"),
}
"""The feature maps that go by a name.

``elu+1`` (Katharopoulos et al. 2020): elu(x) + 1 for both. ``softmax`` (Shen et al. 2021, as
RoFormer writes it below Eq. 18): softmax over the features of a query, exp of a key. Shen et al.
normalise the keys by a softmax over the sequence; that divides each feature by a sum over all
tokens, which neither a causal model nor a recurrent state has, and so the paper's exp it is.
Float32 overflows where a key exceeds 88.
"""


def feature_map(
    given: str | FeatureMap | tuple[Callable[..., Array], Callable[..., Array]],
) -> FeatureMap:
    """A feature map from its name, from a pair of callables (queries, keys), or itself.

    Raises
    ------
    SpecError
        If the name is not known.
    DtypeError
        If it is anything else.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec.feature_maps import feature_map
    >>> feature_map("elu+1").query(np.asarray([-np.inf, 0.0, 1.0]))
    array([0., 1., 2.])
    >>> feature_map((np.abs, np.abs)).name
    'custom'
    """
    if isinstance(given, FeatureMap):
        return given
    if isinstance(given, str):
        if given not in FEATURE_MAPS:
            raise SpecError(
                f"feature_map must be {', '.join(map(repr, FEATURE_MAPS))}, favor(...) or a pair "
                f"of callables, got {given!r}"
            )
        return FEATURE_MAPS[given]
    if isinstance(given, tuple) and len(given) == 2 and all(map(callable, given)):
        return FeatureMap(*given)
    raise DtypeError(
        f"feature_map must be a name, a FeatureMap or a pair of callables (queries, keys), "
        f"got {given!r}"
    )


def favor(
    head_dim: int,
    features: int,
    *,
    seed: int = 0,
    scale: float | None = None,
    orthogonal: bool = True,
) -> FeatureMap:
    """Positive orthogonal random features, FAVOR+ (Choromanski et al. 2021, "Performer").

    phi(x) = exp(w_j . s x - |s x|^2 / 2) / sqrt(features), for directions w_j that are normal
    with unit variance. Then phi(q) . phi(k) estimates exp(s^2 q . k) without bias. For independent
    directions its variance is ``exp(2 x . y) (exp(|x + y|^2) - 1) / features`` with x = s q and
    y = s k; orthogonal ones have a smaller variance (their Theorem 2). No maximum is subtracted:
    it would depend on other tokens.

    Parameters
    ----------
    head_dim : int
        Width of q and k.
    features : int
        Number of directions. Linear attention rotates features: its spec has this ``head_dim``.
    seed : int
        The directions are drawn by NumPy's PCG64 in float64 on the host, once: all frameworks
        see the same ones.
    scale : float or None
        s; None is head_dim^(-1/4), so that the softmax kernel exp(q . k / sqrt(head_dim)) is
        what is estimated.
    orthogonal : bool
        Make each block of ``head_dim`` directions orthogonal, as the Performer does; their
        lengths stay those of independent normal vectors.

    Raises
    ------
    SpecError
        If a number is not positive, or not an integer where it must be.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import favor
    >>> phi = favor(head_dim=4, features=4096, seed=0)
    >>> q, k = np.asarray([0.5, 0.5, 0.5, 0.5]), np.asarray([0.5, 0.5, 0.5, -0.5])
    >>> float((phi.query(q) @ phi.key(k)).round(2)), float(np.exp(q @ k / 2).round(2))
    (1.31, 1.28)
    """
    phi = _PositiveRandomFeatures(head_dim, features, seed, scale, orthogonal)
    return FeatureMap(phi, phi, f"favor({head_dim}, {features}, seed={seed})")


@dataclass(frozen=True)
class _PositiveRandomFeatures:
    """The callable that `favor` gives; two with the same fields are the same map."""

    head_dim: int
    features: int
    seed: int
    scale: float | None
    orthogonal: bool
    directions: npt.NDArray[np.float64] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("head_dim", "features", "seed"):
            value = integer(name, getattr(self, name))
            if value < (name != "seed"):
                raise SpecError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)
        scale = self.head_dim**-0.25 if self.scale is None else self.scale
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise SpecError(f"scale must be a positive number, got {scale!r}")
        object.__setattr__(self, "scale", float(scale))
        object.__setattr__(self, "directions", self._directions())

    def _directions(self) -> npt.NDArray[np.float64]:
        """Shape (features, head_dim)."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        blocks = -(-self.features // self.head_dim)
        normal = rng.standard_normal((blocks, self.head_dim, self.head_dim))
        if self.orthogonal:
            q, r = np.linalg.qr(normal)
            signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))  # without them q is not uniform
            lengths = np.linalg.norm(rng.standard_normal(normal.shape), axis=-1, keepdims=True)
            normal = lengths * np.swapaxes(q * signs[:, None, :], -2, -1)
        return normal.reshape(-1, self.head_dim)[: self.features]

    def __call__(self, x: Array) -> Array:
        if x.shape[-1] != self.head_dim:
            raise ShapeError(
                f"favor was made for head_dim = {self.head_dim}, got shape {tuple(x.shape)}"
            )
        xp = namespace_of(x=x)
        directions: Any = xp.asarray(self.directions, dtype=x.dtype, device=device_of(x))
        x = x * self.scale
        half_square = 0.5 * xp.sum(x * x, axis=-1, keepdims=True)
        projected = x @ xp.matrix_transpose(directions)
        return xp.exp(projected - half_square) * self.features**-0.5
