"""diffusers' one-dimensional rotary embedding, in both of its layouts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import rotary_spec as rs
from rotary_spec.spec import Layout
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.target import Rotary, Target


def one_dimensional(layout: Layout) -> tuple[Target, rs.RotarySpec]:
    """Tables of ``get_1d_rotary_pos_embed``, used by ``apply_rotary_emb``.

    Flux, CogVideoX and Hunyuan-DiT take it interleaved; Stable Audio and OmniGen in halves.
    """
    from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed

    spec = rs.RotarySpec(head_dim=64, layout=layout)
    interleaved = layout == "interleaved"

    def build() -> Rotary:
        def rotate(x: Any, positions: Any) -> Any:
            tables = get_1d_rotary_pos_embed(
                spec.head_dim, positions, use_real=True, repeat_interleave_real=interleaved
            )
            return apply_rotary_emb(x, tables, use_real_unbind_dim=-1 if interleaved else -2)

        return rotate

    target = Target(
        name=f"diffusers:{layout}",
        build=build,
        framework=TorchFramework(),
        head_dim=spec.head_dim,
        fresh=False,
        versions={package: version(package) for package in ("diffusers", "torch")},
        about="get_1d_rotary_pos_embed with apply_rotary_emb",
    )
    return target, spec
