"""Liger's fused Triton kernel: on CUDA, or on the CPU through Triton's interpreter."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.target import Rotary, Target


def rope() -> tuple[Target, rs.RotarySpec]:
    """``LigerRopeFunction`` on (batch, heads, seq, head_dim); its caller supplies cos and sin.

    Raises
    ------
    TargetError
        If there is neither a CUDA device nor TRITON_INTERPRET=1, or no Triton.
    """
    import torch

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if find_spec("triton") is None:
        raise TargetError("liger: triton is not installed; pip install triton")
    if not torch.cuda.is_available() and not interpreted:
        raise TargetError(
            "liger: no CUDA device. Hint: TRITON_INTERPRET=1 runs the kernel on the CPU, slowly"
        )
    from liger_kernel.ops.rope import LigerRopeFunction

    spec = rs.RotarySpec(head_dim=64, layout="half")
    framework = TorchFramework("cuda" if torch.cuda.is_available() else None)

    def pair(q: Any, k: Any, positions: Any) -> Any:
        ids = framework.to_numpy(positions)
        tables = rs.cos_sin(ids, spec, dtype=np.float64)
        dtype = framework.dtype_of(q)
        cos, sin = (framework.asarray(np.concatenate([t, t], -1)[None], dtype) for t in tables)
        return LigerRopeFunction.apply(q, k, cos, sin)

    def build() -> Rotary:
        return lambda x, positions: pair(x, x.clone(), positions)[0]

    target = Target(
        name="liger",
        build=build,
        framework=framework,
        head_dim=spec.head_dim,
        # Triton's interpreter gives NaN in bfloat16 where the same code is right in float32.
        dtypes=("float32", "float16") if interpreted else ("float32", "float16", "bfloat16"),
        fresh=False,
        given_tables=True,
        in_place=True,
        pair=lambda: pair,
        versions={p: version(p) for p in ("liger-kernel", "triton", "torch")},
        about="LigerRopeFunction" + (", interpreted" if interpreted else ""),
    )
    return target, spec
