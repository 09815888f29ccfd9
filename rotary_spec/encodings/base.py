"""What the encodings share: parameters, checks, and the call of one score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rotary_spec._array import (
    INTEGER_DTYPES,
    Array,
    Namespace,
    device_of,
    dtype_name,
    has_dtype,
    namespace_of,
    widest_float,
)
from rotary_spec.arguments import check_floating, position_array
from rotary_spec.errors import PositionError, ShapeError, SpecError
from rotary_spec.rotation import cos_sin
from rotary_spec.spec import RotarySpec, integer


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoding(ABC):
    """A position encoding as the score q_m^T k_n that it gives two tokens.

    Scores are those of the paper's equations: before the division by sqrt(d), and before softmax.
    Parameters that are not given are drawn from ``seed``, the same in every framework: matrices
    W and U orthogonal, so that no encoding is favoured by their scale; tables and vectors of unit
    variance.

    Parameters
    ----------
    dim : int
        Features of an input vector x, and of its query and key.
    seed : int
        Not negative.
    parameters : mapping of str to array, or None
        Parameters to use in place of drawn ones, by the names and shapes of `shapes`.
    """

    dim: int
    seed: int = 0
    parameters: Mapping[str, npt.ArrayLike] | None = None

    name: ClassVar[str]
    equation: ClassVar[str]

    def __post_init__(self) -> None:
        self._at_least("dim", 1)
        self._at_least("seed", 0)
        shapes = self.shapes()
        for name, value in (self.parameters or {}).items():
            if name not in shapes:
                raise SpecError(
                    f"{self.name}: unknown parameter {name!r}; known: {', '.join(shapes)}"
                )
            if np.shape(value) != shapes[name]:
                raise ShapeError(
                    f"{self.name}: parameter {name} must be of shape {shapes[name]}, "
                    f"got {np.shape(value)}"
                )

    def _at_least(self, field: str, least: int) -> None:
        value = integer(field, getattr(self, field))
        if value < least:
            raise SpecError(f"{self.name}: {field} must be at least {least}, got {value}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        return {"W_q": (self.dim, self.dim), "W_k": (self.dim, self.dim)}

    def parameter(self, name: str) -> npt.NDArray[np.float64]:
        """One parameter: the given one, or the one that the seed draws for that name."""
        if self.parameters is not None and name in self.parameters:
            return np.asarray(self.parameters[name], dtype=np.float64)
        rng = np.random.default_rng([self.seed, *name.encode()])
        drawn = rng.standard_normal(self.shapes()[name])
        if name[0] not in "WU":
            return drawn
        orthogonal, triangular = np.linalg.qr(drawn)
        return np.asarray(orthogonal * np.sign(np.diag(triangular)))  # unique, whatever LAPACK

    def scores(self, q_in: Array, k_in: Array, q_positions: Array, k_positions: Array) -> Array:
        """q_m^T k_n for every pair of a query token and a key token.

        Parameters
        ----------
        q_in, k_in : arrays of floats, shapes (..., M, dim) and (..., N, dim)
            Inputs x_m and x_n, before any projection.
        q_positions, k_positions : integer arrays, or lists or ranges of int, shapes (M,) and (N,)

        Returns
        -------
        array of shape (..., M, N)
            float64 where the namespace has it, else float32.

        Raises
        ------
        DtypeError, ShapeError
            If an argument does not fit.
        PositionError
            If the encoding is not defined at a position: a table of positions ends.
        """
        xp = namespace_of(q_in=q_in, k_in=k_in)
        for name, x in (("q_in", q_in), ("k_in", k_in)):
            self._check_features(name, x)
        real = widest_float(xp, q_in)
        m = self._ids("q_positions", q_positions, q_in, xp)
        n = self._ids("k_positions", k_positions, k_in, xp)
        x, y = xp.astype(q_in, real), xp.astype(k_in, real)
        return self.evaluate(Call(self, x, y, m, n, xp))

    @abstractmethod
    def evaluate(self, at: Call) -> Array:
        """The equation, on checked arguments: what a subclass defines, shape (..., M, N)."""

    def _check_features(self, name: str, x: Array) -> None:
        check_floating(x, name)
        if len(x.shape) < 2 or x.shape[-1] != self.dim:
            raise ShapeError(
                f"{name} must be of shape (..., tokens, dim = {self.dim}), got {tuple(x.shape)}"
            )

    @staticmethod
    def _ids(name: str, positions: Array, x: Array, xp: Namespace) -> Array:
        positions = position_array(positions, x, xp)
        if dtype_name(positions) not in INTEGER_DTYPES:
            raise PositionError(f"{name} must be integers, got {dtype_name(positions)}")
        if tuple(positions.shape) != (x.shape[-2],):
            raise PositionError(
                f"{name} must be of shape ({x.shape[-2]},), one per token; "
                f"got {tuple(positions.shape)}"
            )
        return positions


@dataclass(frozen=True)
class Call:
    """The checked arguments of one call of `Encoding.scores`, and what equations are made of.

    Attributes
    ----------
    encoding : Encoding
    x, y : arrays of shapes (..., M, dim) and (..., N, dim)
        The paper's x_m and x_n.
    m, n : arrays of integers, shapes (M,) and (N,)
    xp : array API namespace
    """

    encoding: Encoding
    x: Array
    y: Array
    m: Array
    n: Array
    xp: Namespace

    @property
    def distance(self) -> Array:
        """The distances m - n, shape (M, N); signed, whatever the dtype of the ids."""
        signed = self.xp.int64 if has_dtype(self.xp, "int64", self.x) else self.xp.int32
        m, n = self.xp.astype(self.m, signed), self.xp.astype(self.n, signed)
        return m[:, None] - n[None, :]

    def parameter(self, name: str) -> Array:
        """A parameter of the encoding beside the inputs."""
        values = self.encoding.parameter(name).tolist()
        return self.xp.asarray(values, dtype=self.x.dtype, device=device_of(self.x))

    def project(self, x: Array, name: str) -> Array:
        """W x for every token, W the parameter of that name."""
        return x @ self.xp.matrix_transpose(self.parameter(name))

    def content(self) -> Array:
        """The term that all share: x_m^T W_q^T W_k x_n."""
        return self.products(self.project(self.x, "W_q"), self.project(self.y, "W_k"))

    def products(self, q: Array, k: Array) -> Array:
        """q_m^T k_n, shape (..., M, N)."""
        return q @ self.xp.matrix_transpose(k)

    def rows(self, name: str, index: Array) -> Array:
        """Rows of the parameter table ``name``, shape (*index.shape, ...)."""
        table = self.parameter(name)
        taken = self.xp.take(table, self.xp.reshape(index, (-1,)), axis=0)
        return self.xp.reshape(taken, (*index.shape, *table.shape[1:]))

    def positions_of_table(self, name: str, ids: Array) -> Array:
        """Rows of a table of absolute positions; PositionError where it has none."""
        length = self.encoding.shapes()[name][0]
        outside = (ids < 0) | (ids >= length)
        if bool(self.xp.any(outside)):
            worst = int(self.xp.max(ids)), int(self.xp.min(ids))
            shown = worst[0] if worst[0] >= length else worst[1]
            raise PositionError(
                f"{self.encoding.name}: position {shown} has no row in the table of positions "
                f"0 .. {length - 1}: the encoding is not defined beyond its training length"
            )
        return self.rows(name, ids)

    def sinusoids(self, ids: Array) -> Array:
        """p_{i,2t} = sin(i / 10000^(2t/d)), p_{i,2t+1} = cos(i / 10000^(2t/d)) (RoFormer Eq. 4)."""
        cos, sin = cos_sin(ids, RotarySpec(self.encoding.dim), dtype=self.x.dtype)
        stacked = self.xp.stack([sin, cos], axis=-1)
        return self.xp.reshape(stacked, (*ids.shape, self.encoding.dim))
