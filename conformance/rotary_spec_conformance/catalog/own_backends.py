"""The backends of this package, held to the same checks as anybody's code."""

from __future__ import annotations

from typing import Any

import rotary_spec as rs
from rotary_spec import BackendUnavailable
from rotary_spec_backends import select, status
from rotary_spec_conformance.target import Rotary, Target


def backend(name: str, device: str | None = None) -> tuple[Target, rs.RotarySpec]:
    """A backend on a device.

    Raises
    ------
    BackendUnavailable
        If it cannot be used here; the text says why.
    """
    spec = rs.RotarySpec(head_dim=128, layout="half")
    if (reason := status(name).reason) is not None:
        raise BackendUnavailable(reason)
    chosen = select(name, device=device)

    def shaped(positions: Any) -> Any:
        return positions if positions.ndim == 1 else positions[:, None, :]

    def build() -> Rotary:
        return lambda x, positions: chosen.rotate(x, shaped(positions), spec)

    target = Target(
        name=f"rotary-spec:{name}",
        build=build,
        framework=chosen.framework,
        head_dim=spec.head_dim,
        dtypes=status(name).dtypes,
        row_positions=True,
        fresh=False,
        pair=lambda: lambda q, k, positions: chosen.rotate((q, k), shaped(positions), spec),
        versions={"rotary-spec": rs.__version__, name: str(status(name).version)},
        about=f"{type(chosen).__name__} on {device or status(name).devices[0]}",
    )
    return target, spec
