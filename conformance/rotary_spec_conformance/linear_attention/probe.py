"""Calls an instance of a linear attention with host arrays, and recovers its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rotary_spec_conformance.linear_attention.target import LinearAttentionTarget
from rotary_spec_conformance.probe import Floats, Ints, Probe, TargetMisbehaved, guarded
from rotary_spec_conformance.registry import NotRun


class LinearAttentionProbe(Probe):
    """One instance of a target. Arrays have shape (batch, heads, seq, dim) everywhere."""

    target: LinearAttentionTarget

    def attend(
        self, q: Floats, k: Floats, v: Floats, positions: npt.ArrayLike, dtype: str | None = None
    ) -> Floats:
        """The target's result for host arrays, as float64."""
        native = [self.native(x, dtype) for x in (q, k, v)]
        places = self.places(positions)
        return self.read_like(self.called(native, places), v)

    def called(self, native: list[Any], places: Any) -> Any:
        """The instance itself on native q, k and v."""
        shapes = ", ".join(str(tuple(x.shape)) for x in native)
        instance: Any = self.instance
        return guarded(lambda: instance(*native, places), f"for q, k, v of shape {shapes}")

    def read_like(self, out: Any, v: Floats) -> Floats:
        """The target's answer as float64, checked to be of the shape of the values."""
        if self.framework.owns(out) and tuple(out.shape) != v.shape:
            raise TargetMisbehaved(f"returned shape {tuple(out.shape)} for v of shape {v.shape}")
        return self.read(out, v.shape)

    def places(self, positions: npt.ArrayLike) -> Any:
        """Positions, shape (seq,), as the target takes them; `NotRun` where it cannot."""
        ids: Ints = np.asarray(positions, dtype=np.int64)
        kind = self.target.positions
        if kind == "explicit":
            return self.framework.asarray(ids, "int64")
        start = int(ids[0]) if len(ids) else 0
        if not np.array_equal(ids, np.arange(start, start + len(ids))):
            raise NotRun("positions are always consecutive")
        if kind == "arange" and start:
            raise NotRun("positions always start at 0")
        return start if kind == "offset" else None

    def weights(self, q: Floats, k: Floats, positions: npt.ArrayLike) -> Floats:
        """How much of each value is in each result, (queries, keys), for q and k of (seq, dim).

        Linear attention is linear in the values: one-hot ones show the whole matrix. They go
        through in blocks of ``value_dim`` keys, one block to a batch row.
        """
        count, width = len(k), self.target.values
        blocks = -(-count // width)
        v = np.eye(count, blocks * width).reshape(count, blocks, 1, width).transpose(1, 2, 0, 3)
        q, k = (np.broadcast_to(x, (blocks, 1, *x.shape)) for x in (q, k))
        out: Floats = self.attend(q, k, v, positions)[:, 0]
        return np.moveaxis(out, 0, 1).reshape(count, -1)[:, :count]
