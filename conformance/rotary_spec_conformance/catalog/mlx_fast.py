"""MLX's fused rope."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import rotary_spec as rs
from rotary_spec.spec import Layout
from rotary_spec_conformance.mlx_framework import MlxFramework
from rotary_spec_conformance.target import Rotary, Target


def rope(layout: Layout) -> tuple[Target, rs.RotarySpec]:
    """``mx.fast.rope`` on MLX's default device; ``traditional`` is its word for interleaved."""
    import mlx.core as mx

    spec = rs.RotarySpec(head_dim=64, layout=layout)
    traditional = layout == "interleaved"

    def build() -> Rotary:
        def rotate(x: Any, offset: Any) -> Any:
            return mx.fast.rope(
                x, spec.head_dim, traditional=traditional, base=spec.base, scale=1.0, offset=offset
            )

        return rotate

    target = Target(
        name=f"mlx:{layout}",
        build=build,
        framework=MlxFramework(),
        head_dim=spec.head_dim,
        positions="offset",
        fresh=False,
        versions={"mlx": version("mlx")},
        about=f"mlx.core.fast.rope(traditional={traditional}) on {mx.default_device()}",
    )
    return target, spec
