"""Long-term decay: how RoPE's scores fall with the distance (RoFormer Section 3.4.3, Eq. 35 to 37).

With the pairs of q and k as complex numbers, h_i = q_i k_i*, the score at distance r = m - n is
A^2 Re[sum_i h_i e^{i r theta_i}] (Eq. 35). Summed by parts over S_j = sum_{i<j} e^{i r theta_i},
its magnitude is at most A^2 max_i |h_{i+1} - h_i| sum_j |S_j| (Eq. 36 and 37), h ending in a zero.

Distances are positions as `rotary_spec.rotate` takes them, of any Array API namespace; phases are
exact, so a distance of a million is as good as one of 10. Results are float64 where the namespace
has it, else float32.
"""

from __future__ import annotations

from dataclasses import replace

from rotary_spec import layouts
from rotary_spec._array import Array, Namespace, namespace_of, widest_float
from rotary_spec.arguments import check_features, check_spec
from rotary_spec.errors import ShapeError
from rotary_spec.frequencies import attention_factor
from rotary_spec.rotation import cos_sin
from rotary_spec.spec import RotarySpec


def partial_sums(distances: Array, spec: RotarySpec, *, seq_len: int | None = None) -> Array:
    """|S_j| = |sum_{i<j} e^{i r theta_i}| for j = 1 .. rotary_dim / 2 (RoFormer Eq. 36).

    Parameters
    ----------
    distances : array of integers, shape (...)
        r = m - n, in positions.
    spec : RotarySpec
        Its frequencies are used; the attention factor is not part of S.
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    array of shape (..., rotary_dim // 2)
        Dimensionless; at r = 0 it is 1, 2, 3, ...

    Raises
    ------
    DtypeError, PositionError
        If ``distances`` is not an array, or not of integers.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.decay import partial_sums
    >>> partial_sums(np.asarray([0, 100]), RotarySpec(head_dim=8)).round(3)
    array([[1.   , 2.   , 3.   , 4.   ],
           [1.   , 1.051, 0.601, 1.562]])
    """
    cos, sin = _unit_phases(distances, spec, seq_len)
    xp = namespace_of(distances=distances)
    real, imaginary = xp.cumulative_sum(cos, axis=-1), xp.cumulative_sum(sin, axis=-1)
    return xp.sqrt(real * real + imaginary * imaginary)


def mean_partial_sum(distances: Array, spec: RotarySpec, *, seq_len: int | None = None) -> Array:
    """The mean of |S_j| over j = 1 .. d/2, the curve of RoFormer's Figure 2.

    Parameters, errors
    ------------------
    As of `partial_sums`.

    Returns
    -------
    array of the shape of ``distances``
        (d/2 + 1) / 2 at distance 0.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.decay import mean_partial_sum
    >>> mean_partial_sum(np.asarray([0, 50, 250]), RotarySpec(head_dim=128)).round(2)
    array([32.5 , 12.63,  6.55])
    """
    sums = partial_sums(distances, spec, seq_len=seq_len)
    return namespace_of(distances=distances).mean(sums, axis=-1)


def score(
    q: Array, k: Array, distances: Array, spec: RotarySpec, *, seq_len: int | None = None
) -> Array:
    """(R_m q)^T (R_n k) at distance m - n, from the pairs of q and k (RoFormer Eq. 35).

    Parameters
    ----------
    q, k : arrays of floats, shape (..., head_dim)
        Before the rotation; of one framework.
    distances : array of integers
        Broadcasts against ``q.shape[:-1]`` and ``k.shape[:-1]``.
    spec, seq_len
        As of `partial_sums`; the score has the factor A^2 on the rotated lanes. Lanes that pass
        through add their product, the same at every distance.

    Returns
    -------
    array of the broadcast shape

    Raises
    ------
    DtypeError, ShapeError, PositionError
        If an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.decay import score
    >>> score(np.ones(2), np.ones(2), np.asarray([0, 1]), RotarySpec(head_dim=2)).round(3)
    array([2.   , 1.081])
    """
    real, imaginary, passing, xp = _pair_products(q, k, distances, spec)
    cos, sin = _unit_phases(distances, spec, seq_len)
    if spec.inverse:
        sin = -sin
    rotated = xp.sum(real * cos - imaginary * sin, axis=-1)
    return attention_factor(spec, seq_len) ** 2 * rotated + passing


def bound(
    q: Array, k: Array, distances: Array, spec: RotarySpec, *, seq_len: int | None = None
) -> Array:
    """What |`score`| cannot exceed: A^2 max_i |h_{i+1} - h_i| sum_j |S_j| (RoFormer Eq. 37).

    h_{d/2} = 0, so the last difference is h_{d/2-1} itself. Takes what `score` takes; lanes that
    pass through add the magnitude of their product.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.decay import bound
    >>> bound(np.ones(8), np.ones(8), np.asarray([0, 100]), RotarySpec(head_dim=8)).round(3)
    array([20.   ,  8.428])
    """
    real, imaginary, passing, xp = _pair_products(q, k, distances, spec)
    steps = []
    for part in (real, imaginary):
        end = xp.zeros_like(part[..., :1])
        steps.append(xp.concat([part[..., 1:], end], axis=-1) - part)
    largest = xp.max(xp.sqrt(steps[0] * steps[0] + steps[1] * steps[1]), axis=-1)
    total = xp.sum(partial_sums(distances, spec, seq_len=seq_len), axis=-1)
    return attention_factor(spec, seq_len) ** 2 * largest * total + xp.abs(passing)


def expected_score(
    moment: Array, distances: Array, spec: RotarySpec, *, seq_len: int | None = None
) -> Array:
    """E[(R_m q)^T (R_n k)] at distance m - n, for random q and k of known statistics.

    Eq. 35 is linear in the products q_a k_b: its expectation needs their means only.

    Parameters
    ----------
    moment : array of floats, shape (..., head_dim, head_dim)
        E[q k^T] before the rotation: ``q.T @ k / len(q)`` of samples, or ``outer(mean_q, mean_k)``
        plus the covariance of q with k. The identity: equal q and k of unit variance.
    distances : array of integers
        Broadcasts against ``moment.shape[:-2]``.
    spec, seq_len
        As of `score`.

    Returns
    -------
    array of the broadcast shape

    Raises
    ------
    DtypeError, ShapeError, PositionError
        If an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.decay import expected_score
    >>> expected_score(np.eye(128), np.asarray([0, 50, 250]), RotarySpec(head_dim=128)).round(1)
    array([128. ,  69.9,  39.3])
    """
    xp = namespace_of(moment=moment, distances=distances)
    check_features(moment, check_spec(spec), name="moment")
    if len(moment.shape) < 2 or moment.shape[-2] != spec.head_dim:
        raise ShapeError(
            f"moment must be of shape (..., head_dim, head_dim) = (..., {spec.head_dim}, "
            f"{spec.head_dim}), got {tuple(moment.shape)}"
        )
    moment = xp.astype(moment, widest_float(xp, moment))
    first, second = layouts.input_lanes(spec)
    kept = [lane for lane in range(spec.head_dim) if lane not in {*first, *second}]

    def mean(rows: tuple[int, ...], columns: tuple[int, ...]) -> Array:
        """E[q_a k_b] of the listed lanes, shape (..., lanes)."""
        return xp.stack([moment[..., a, b] for a, b in zip(rows, columns)], axis=-1)

    cos, sin = _unit_phases(distances, spec, seq_len)
    if spec.inverse:
        sin = -sin
    real = mean(first, first) + mean(second, second)
    imaginary = mean(second, first) - mean(first, second)
    rotated = xp.sum(real * cos - imaginary * sin, axis=-1)
    total = attention_factor(spec, seq_len) ** 2 * rotated
    return total + xp.sum(mean(tuple(kept), tuple(kept)), axis=-1) if kept else total


def _unit_phases(distances: Array, spec: RotarySpec, seq_len: int | None) -> tuple[Array, Array]:
    """A table of r theta_i without the attention factor and for the positive direction."""
    plain = replace(check_spec(spec), attention_factor=1.0, inverse=False)
    xp = namespace_of(distances=distances)
    return cos_sin(distances, plain, seq_len=seq_len, dtype=widest_float(xp, distances))


def _pair_products(
    q: Array, k: Array, distances: Array, spec: RotarySpec
) -> tuple[Array, Array, Array, Namespace]:
    """Real and imaginary part of h_i = q_i k_i*, and the product of the lanes that pass through."""
    xp = namespace_of(q=q, k=k, distances=distances)
    check_spec(spec)
    check_features(q, spec, name="q")
    check_features(k, spec, name="k")
    q, k = xp.astype(q, widest_float(xp, q)), xp.astype(k, widest_float(xp, k))
    place = layouts.rotated_lanes(spec)
    (q1, q2), (k1, k2) = (layouts.split_pairs(x[..., place], spec.layout) for x in (q, k))
    products = q * k
    passing = xp.sum(products[..., : place.start], axis=-1) + xp.sum(
        products[..., place.stop :], axis=-1
    )
    return q1 * k1 + q2 * k2, q2 * k1 - q1 * k2, passing, xp
