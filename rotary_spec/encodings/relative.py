"""Encodings of the distance m - n (RoFormer Eq. 5 and 7 to 10), and RoPE (Eq. 14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rotary_spec._array import Array, Namespace, device_of
from rotary_spec.encodings.absolute import Learned
from rotary_spec.encodings.base import Call, Encoding
from rotary_spec.errors import SpecError
from rotary_spec.rotation import rotate
from rotary_spec.spec import RotarySpec


@dataclass(frozen=True, eq=False, kw_only=True)
class Shaw(Encoding):
    """A learned vector of the clipped distance, added to the key's input (RoFormer Eq. 5).

    k_n = W_k (x_n + p_r), r = clip(m - n, -reach, reach); Shaw et al., arXiv:1803.02155. The
    equation adds another table to the values, which scores do not see.

    Parameters
    ----------
    reach : int
        Largest distance with a vector of its own.
    """

    reach: int = 16
    name: ClassVar[str] = "Shaw"
    equation: ClassVar[str] = "5"

    def __post_init__(self) -> None:
        self._at_least("reach", 1)
        super().__post_init__()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(), "p": (2 * self.reach + 1, self.dim)}

    def evaluate(self, at: Call) -> Array:
        r = at.xp.clip(at.distance, -self.reach, self.reach)
        return at.content() + _against(
            at.project(at.x, "W_q"), at.project(at.rows("p", r + self.reach), "W_k")
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class TransformerXL(Encoding):
    """Four terms with sinusoids of the distance (RoFormer Eq. 7; Dai et al., arXiv:1901.02860).

    x_m^T W_q^T W_k x_n + x_m^T W_q^T W~_k p_{m-n} + u^T W_q^T W_k x_n + v^T W_q^T W~_k p_{m-n},
    p the sinusoids of Eq. 4. (Transformer-XL itself has u and v in place of W_q u and W_q v.)
    """

    name: ClassVar[str] = "Transformer-XL"
    equation: ClassVar[str] = "7"

    def __post_init__(self) -> None:
        RotarySpec(self.dim)
        super().__post_init__()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        square = (self.dim, self.dim)
        return {**super().shapes(), "W~_k": square, "u": (self.dim,), "v": (self.dim,)}

    def evaluate(self, at: Call) -> Array:
        k = at.project(at.y, "W_k")
        p = at.project(at.sinusoids(at.distance), "W~_k")
        # The terms in pairs: the bias u joins the content's query, v the position's.
        content = at.products(at.project(at.x + at.parameter("u"), "W_q"), k)
        return content + _against(at.project(at.x + at.parameter("v"), "W_q"), p)


@dataclass(frozen=True, eq=False, kw_only=True)
class T5(Encoding):
    """A learned bias per bucket of distances, added to the score (RoFormer Eq. 8).

    Raffel et al., arXiv:1910.10683, bidirectional: half of the buckets for keys after the query.
    Of each half, the first half hold one distance each, the others grow in ratio up to
    ``max_distance``; all that is farther shares the last.

    Parameters
    ----------
    buckets : int
        A multiple of 4.
    max_distance : int
        More than buckets / 4.
    """

    buckets: int = 32
    max_distance: int = 128
    name: ClassVar[str] = "T5 bias"
    equation: ClassVar[str] = "8"

    def __post_init__(self) -> None:
        self._at_least("buckets", 4)
        if self.buckets % 4:
            raise SpecError(f"{self.name}: buckets must be a multiple of 4, got {self.buckets}")
        self._at_least("max_distance", self.buckets // 4 + 1)
        super().__post_init__()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(), "b": (self.buckets,)}

    def evaluate(self, at: Call) -> Array:
        index = _bucket(at.distance, self.buckets, self.max_distance, at.xp)
        return at.content() + at.rows("b", index)


@dataclass(frozen=True, eq=False, kw_only=True)
class TUPE(T5, Learned):
    """Positions that meet positions only, with projections of their own (RoFormer Eq. 9).

    x_m^T W_q^T W_k x_n + p_m^T U_q^T U_k p_n + b_{m,n}: p a table of absolute positions, b the
    bias of `T5`; Ke et al., arXiv:2006.15595.
    """

    name: ClassVar[str] = "TUPE"
    equation: ClassVar[str] = "9"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        square = (self.dim, self.dim)
        return {**super().shapes(), "U_q": square, "U_k": square}

    def evaluate(self, at: Call) -> Array:
        q = at.project(at.positions_of_table("p", at.m), "U_q")
        k = at.project(at.positions_of_table("p", at.n), "U_k")
        return T5.evaluate(self, at) + at.products(q, k)


@dataclass(frozen=True, eq=False, kw_only=True)
class DeBERTa(Encoding):
    """Content and distance disentangled: three terms (RoFormer Eq. 10).

    x_m^T W_q^T W_k x_n + x_m^T W_q^T W_k p_{m-n} + p_{m-n}^T W_q^T W_k x_n, p a learned table of
    the distance clipped to -reach .. reach - 1; He et al., arXiv:2006.03654.

    Parameters
    ----------
    reach : int
        k of the DeBERTa paper.
    """

    reach: int = 64
    name: ClassVar[str] = "DeBERTa"
    equation: ClassVar[str] = "10"

    def __post_init__(self) -> None:
        self._at_least("reach", 1)
        super().__post_init__()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(), "p": (2 * self.reach, self.dim)}

    def evaluate(self, at: Call) -> Array:
        p = at.rows("p", at.xp.clip(at.distance, -self.reach, self.reach - 1) + self.reach)
        from_content = _against(at.project(at.x, "W_q"), at.project(p, "W_k"))
        turned = at.xp.permute_dims(at.project(p, "W_q"), (1, 0, 2))
        to_content = at.xp.matrix_transpose(_against(at.project(at.y, "W_k"), turned))
        return at.content() + from_content + to_content


@dataclass(frozen=True, eq=False, kw_only=True)
class Rotary(Encoding):
    """RoPE: q_m = R_m W_q x_m, k_n = R_n W_k x_n (RoFormer Eq. 14 and 16).

    Parameters
    ----------
    spec : RotarySpec or None
        Of head_dim = dim; None means the paper's.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec.encodings import Rotary
    >>> x = np.ones((1, 4))
    >>> near, far = (Rotary(dim=4).scores(x, x, [m], [m + 3]) for m in (0, 10_000))
    >>> bool(np.allclose(near, far, rtol=0, atol=1e-12))
    True
    """

    spec: RotarySpec | None = None
    name: ClassVar[str] = "RoPE"
    equation: ClassVar[str] = "14, 16"

    def __post_init__(self) -> None:
        spec = RotarySpec(self.dim) if self.spec is None else self.spec
        if not isinstance(spec, RotarySpec) or spec.head_dim != self.dim:
            raise SpecError(
                f"{self.name}: spec must be a RotarySpec of head_dim = dim = {self.dim}, "
                f"got {spec!r}"
            )
        super().__post_init__()

    def evaluate(self, at: Call) -> Array:
        spec = self.spec or RotarySpec(self.dim)
        q = rotate(at.project(at.x, "W_q"), at.m, spec)
        return at.products(q, rotate(at.project(at.y, "W_k"), at.n, spec))


def _bucket(distance: Array, buckets: int, max_distance: int, xp: Namespace) -> Array:
    """T5's bucket of every distance m - n."""
    starts = xp.asarray(
        bucket_starts(buckets // 2, max_distance), dtype=distance.dtype, device=device_of(distance)
    )
    passed = xp.astype(xp.abs(distance)[..., None] >= starts, distance.dtype)
    after = xp.astype(distance < 0, distance.dtype)  # the key comes after the query
    return xp.sum(passed, axis=-1, dtype=distance.dtype) + (buckets // 2) * after


def bucket_starts(buckets: int, max_distance: int) -> list[int]:
    """Smallest distance of each of T5's buckets but the first, in integers.

    T5 truncates e + log(n / e) / log(D / e) * (B - e), e = B / 2; a logarithm that is rounded just
    below a whole number would give the wrong bucket there.

    >>> from rotary_spec.encodings.relative import bucket_starts
    >>> bucket_starts(16, 128)
    [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    """
    exact = buckets // 2
    grown = buckets - exact
    starts = list(range(1, exact + 1))
    for k in range(1, grown):
        n = starts[-1]
        while n**grown < exact ** (grown - k) * max_distance**k:
            n += 1
        starts.append(n)
    return starts


def _against(queries: Array, vectors: Array) -> Array:
    """queries_m^T vectors_{m,n}: (..., M, d) with (M, N, d) gives (..., M, N)."""
    return (vectors @ queries[..., None])[..., 0]
