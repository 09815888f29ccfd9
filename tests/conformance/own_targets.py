"""This package's backends as targets, one spec each."""

from __future__ import annotations

from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec_backends import Backend, select, status
from rotary_spec_conformance import Target
from rotary_spec_conformance.inference import framework_named

ROWS = 1024
"""More than a check of few lanes passes in one call."""


def backend_target(
    name: str,
    spec: rs.RotarySpec,
    device: str | None = None,
    *,
    seq_len: int | None = None,
    coordinates: bool = False,
    backend: Backend | None = None,
) -> Target:
    """A backend that rotates by ``spec`` in a sequence of ``seq_len``."""
    backend = backend or select(name, device=device)

    def rotate(x: Any, positions: Any) -> Any:
        ids = positions if positions.ndim == 1 + axial else positions[..., None, :]
        return backend.rotate(x, ids, spec, seq_len=seq_len)

    axial = spec.sections is not None
    return Target(
        name,
        build=lambda: rotate,
        framework=framework_named(name, device),
        head_dim=spec.head_dim,
        dtypes=status(name).dtypes,
        row_positions=True,
        axes=spec.sections and spec.sections.axes,
        coordinates=coordinates,
        fresh=False,
        pair=lambda: (
            lambda q, k, positions: backend.rotate((q, k), positions, spec, seq_len=seq_len)
        ),
    )


def jax_by_rows(spec: rs.RotarySpec, seq_len: int | None = None) -> Target:
    """The JAX backend, given all rows of a call on one axis of one length.

    Compiled once per dtype, where every shape of the checks would be compiled for every spec.
    """
    import jax.numpy as jnp

    backend = select("jax")
    axes = () if spec.sections is None else (spec.sections.axes,)

    def rotate(x: Any, positions: Any) -> Any:
        batch, heads, seq, _ = x.shape
        host = np.asarray(positions)
        if host.shape not in ((*axes, seq), (*axes, batch, seq)):
            raise ValueError(f"positions of shape {host.shape} for {seq} rows")
        host = host if host.ndim == 1 + len(axes) else host[..., None, :]
        ids = np.broadcast_to(
            host if host.ndim > 1 + len(axes) else host[..., None, None, :],
            (*axes, batch, heads, seq),
        ).reshape(*axes, -1)
        left = ROWS - ids.shape[-1]
        ids = np.pad(ids, [*[(0, 0)] * len(axes), (0, left)])
        rows = jnp.pad(x.reshape(-1, x.shape[-1]), [(0, left), (0, 0)])
        y = backend.rotate(rows, jnp.asarray(ids), spec, seq_len=seq_len)
        return y[: ids.shape[-1] - left].reshape(x.shape)

    return Target(
        "jax by rows",
        build=lambda: rotate,
        framework=framework_named("jax"),
        head_dim=spec.head_dim,
        dtypes=status("jax").dtypes,
        row_positions=True,
        axes=spec.sections and spec.sections.axes,
        fresh=False,
    )
