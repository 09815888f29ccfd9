"""`Probe`: calls an instance of a target with host arrays and reads the answer back.

Whatever way the target takes positions, a probe answers one question: where does row s go when it
stands at position m_s? Offsets are split into runs of consecutive positions; an implicit ``arange``
gets the rows placed where their positions say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from rotary_spec_conformance.target import Target

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[Any]
"""Positions, or coordinates where the target takes them."""


class TargetMisbehaved(Exception):
    """The target raised, or returned something that is not its result; the text says what."""


def on_every_axis(positions: npt.ArrayLike, axes: int | None) -> Places:
    """Positions of text, which stands at the same place on every axis: shape (axes, ...).

    Without axes, the positions as they are.
    """
    places = np.asarray(positions)
    if axes is None:
        return places
    return np.ascontiguousarray(np.broadcast_to(places, (axes, *places.shape)))


class Probe:
    """One instance of a target.

    Parameters
    ----------
    target : Target
    dtype : str
        Dtype of the inputs it makes, unless a call names another.
    """

    def __init__(self, target: Target, dtype: str) -> None:
        self.target = target
        self.dtype = dtype
        self.framework = target.framework
        self.instance = guarded(target.build, "while it was built")

    def __call__(
        self,
        x: npt.ArrayLike,
        positions: npt.ArrayLike,
        dtype: str | None = None,
        *,
        axial: bool = False,
    ) -> Floats:
        """Rows rotated by their positions, as float64.

        Parameters
        ----------
        x : host array, shape (batch, heads, seq, head_dim)
        positions : host integers, shape (seq,), or (batch, seq) for targets that take them
            Where the target has axes, all of them stand there.
        axial : bool
            Whether ``positions`` say where each axis stands, shape (axes, seq) or
            (axes, batch, seq); floating ones are coordinates.
        """
        host = np.asarray(x, dtype=np.float64)
        dtype = dtype or self.dtype
        if self.target.positions == "explicit":
            ids = self.native_ids(positions, axial=axial)
            return self.read(self.call(self.native(host, dtype), ids), host.shape)
        ids = np.asarray(positions, dtype=np.int64)
        if self.target.positions == "offset":
            return self._by_runs(host, ids, dtype)
        return self._by_arange(host, ids, dtype)

    def call(self, x: Any, positions: Any) -> Any:
        """The instance itself on native arguments; what it raises becomes `TargetMisbehaved`."""
        shape, name = tuple(x.shape), self.framework.dtype_of(x)
        return guarded(
            lambda: self.instance(x, positions),
            f"for x of shape {shape}, {name}, positions {_shown(positions)}",
        )

    def pair(self, q: Floats, k: Floats) -> tuple[Floats, Floats]:
        """Queries and keys at positions 0, 1, ... rotated in one call of `Target.pair`."""
        assert self.target.pair is not None
        rotate = guarded(self.target.pair, "while it was built")
        native = [self.native(x) for x in (q, k)]
        ids = self.native_positions(q.shape[2])
        out = guarded(lambda: rotate(*native, ids), f"for q, k of shape {q.shape}, {k.shape}")
        if not isinstance(out, tuple | list) or len(out) != 2:
            raise TargetMisbehaved(f"returned {type(out).__name__} instead of a pair (q, k)")
        return self.read(out[0], q.shape), self.read(out[1], k.shape)

    def native(self, x: npt.ArrayLike, dtype: str | None = None) -> Any:
        """A contiguous array of the framework, whatever view of host memory ``x`` is."""
        return self.framework.asarray(np.ascontiguousarray(x), dtype or self.dtype)

    def native_positions(self, count: int) -> Any:
        """Positions 0 .. count-1, as the target takes them."""
        if self.target.positions == "explicit":
            return self.native_ids(np.arange(count))
        return 0 if self.target.positions == "offset" else None

    def native_ids(self, positions: npt.ArrayLike, *, axial: bool = False) -> Any:
        """Explicit positions as an array of the framework; see `__call__`."""
        places = np.asarray(positions) if axial else on_every_axis(positions, self.target.axes)
        return self.framework.asarray(places, "float32" if places.dtype.kind == "f" else "int64")

    def read(self, y: Any, shape: tuple[int, ...]) -> Floats:
        """The target's answer as float64, or `TargetMisbehaved` if it is not an array like x."""
        if not self.framework.owns(y):
            raise TargetMisbehaved(
                f"returned {type(y).__module__}.{type(y).__name__} instead of a "
                f"{self.framework.name} array"
            )
        if tuple(y.shape) != shape:
            raise TargetMisbehaved(f"returned shape {tuple(y.shape)} for x of shape {shape}")
        if (dtype := self.framework.dtype_of(y)).startswith(("complex", "bool")):
            raise TargetMisbehaved(f"returned {dtype} values")
        # A lazy framework computes, and raises, only now.
        host: Floats = guarded(lambda: self.framework.to_numpy(y), "while its result was read")
        return host

    def responses(
        self, vectors: npt.ArrayLike, positions: npt.ArrayLike, *, axial: bool = False
    ) -> Floats:
        """Where each vector goes at each position, shape (vectors, positions, head_dim).

        Explicit positions put everything on the sequence axis, the one axis that a rotary
        embedding must read; the others need the vectors on the heads axis.
        """
        v = np.asarray(vectors, dtype=np.float64)
        ids = np.asarray(positions)
        if self.target.positions == "explicit":
            rows = np.repeat(v, ids.shape[-1], axis=0)[None, None]
            flat: Floats = self(rows, np.tile(ids, len(v)), axial=axial)
            return flat.reshape(len(v), ids.shape[-1], -1)
        out: Floats = self(np.repeat(v[None, :, None], len(ids), axis=2), ids)[0]
        return out

    def _by_runs(self, x: Floats, ids: Ints, dtype: str) -> Floats:
        breaks = np.flatnonzero(np.diff(ids) != 1) + 1
        parts = []
        for rows in np.split(np.arange(len(ids)), breaks):
            part = x[:, :, rows]
            y = self.call(self.native(part, dtype), int(ids[rows[0]]))
            parts.append(self.read(y, part.shape))
        return np.concatenate(parts, axis=2) if parts else x

    def _by_arange(self, x: Floats, ids: Ints, dtype: str) -> Floats:
        whole = np.zeros((*x.shape[:2], int(ids.max(initial=0)) + 1, x.shape[-1]))
        whole[:, :, ids] = x
        y = self.call(self.native(whole, dtype), None)
        return self.read(y, whole.shape)[:, :, ids]


def first_touch(target: Target) -> None:
    """One narrow call, before any other: what keeps the precision of its first call shows it.

    A table that is made once for all instances would otherwise be made by the float32 calls of the
    first checks. Rows at position 0, where every dtype is exact, disturb nothing else.
    """
    narrow = [d for d in ("bfloat16", "float16") if d in target.usual_dtypes()]
    if narrow:
        with suppress(TargetMisbehaved):
            rows = 16  # as in the quick ladder: where a call is compiled, a new shape costs
            Probe(target, narrow[0])(np.zeros((1, 1, rows, target.head_dim)), [0] * rows)


def guarded(function: Callable[[], Any], when: str) -> Any:
    """What the function gives; whatever it raises becomes `TargetMisbehaved`."""
    try:
        return function()
    except Exception as error:  # the code under test may raise anything
        text = str(error).strip().splitlines()
        first = text[0] if text else ""
        raise TargetMisbehaved(f"raised {type(error).__name__} {when}: {first}") from error


def _shown(positions: Any) -> str:
    if hasattr(positions, "shape"):
        return f"of shape {tuple(positions.shape)}"
    return "implicit" if positions is None else f"from {positions}"
