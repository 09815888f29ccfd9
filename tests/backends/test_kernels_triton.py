"""The Triton kernel as a GPU gets it, compiled here without one: how wide it reads and writes."""

from __future__ import annotations

import re
from typing import Any

import pytest

import rotary_spec as rs
from rotary_spec_backends.kernels import triton_rotation
from rotary_spec_backends.kernels.geometry import Rows, Strides, Tokens

triton = pytest.importorskip("triton")

NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}


def compiled(spec: rs.RotarySpec, dtype: str, stride: int = 128, architecture: int = 90) -> Any:
    """The kernel for two arrays of that dtype, with tokens and heads ``stride`` apart."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rotary_spec_backends.kernels.triton_kernel import rotate_rows

    strides = Strides(64 * stride, stride, 32 * stride)
    rows = Rows(Tokens(1, 4096, 0, 1), 2, 32, strides, strides)
    _, *arguments = triton_rotation.launch((rows, rows), spec, 1.0, SIZES[dtype], False)
    names = [parameter.name for parameter in rotate_rows.params]
    pointers = dict.fromkeys(names[:4], f"*{NAMES[dtype]}") | dict.fromkeys(names[4:6], "*i64")
    values = dict(zip(names[6:], arguments, strict=True))
    signature = {
        p.name: pointers.get(p.name, "constexpr" if p.is_constexpr else p.annotation_type)
        for p in rotate_rows.params
    }
    constants = {(i,): values[p.name] for i, p in enumerate(rotate_rows.params) if p.is_constexpr}
    aligned = {(i,): [["tt.divisibility", 16]] for i in (0, 1, 2, 3, 5)}
    source = ASTSource(rotate_rows, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": triton_rotation.THREADS // 32, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


SPECS = {
    "half": rs.RotarySpec(128, layout="half"),
    "interleaved": rs.RotarySpec(128),
    "last lanes": rs.RotarySpec(128, layout="half", rotary_dim=64, rotary_start=64),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_sixteen_bytes(spec: rs.RotarySpec, dtype: str) -> None:
    """Features are read and written 16 bytes at a time, those that pass through too."""
    ptx = compiled(spec, dtype).asm["ptx"]
    stores = re.findall(r"st\.global\S*", ptx)
    assert stores
    assert all(store.endswith(".v4.b32") for store in stores), stores
    loads = re.findall(r"ld\.global\S*", ptx)
    wide = [load for load in loads if load.endswith(".v4.b32")]
    # All the others are positions and frequencies, 64 bits each.
    assert all(load.endswith((".v4.b32", ".b64")) for load in loads), loads
    assert len(wide) == len(stores)


def test_nothing_is_passed_between_threads_in_the_loop() -> None:
    """The loop over heads holds what it needs in registers: no barrier in it."""
    for layout in ("half", "interleaved"):
        ptx = compiled(rs.RotarySpec(128, layout=layout), "bfloat16").asm["ptx"]  # type: ignore[arg-type]
        first, last = ptx.index("ld.global.v4"), ptx.rindex("st.global.v4")
        assert "bar.sync" not in ptx[first:last]


@pytest.mark.parametrize("architecture", [80, 90])
def test_strides_that_are_no_multiple(architecture: int) -> None:
    """Rows that start between two vectors are read by what does divide them."""
    ptx = compiled(SPECS["half"], "bfloat16", stride=132, architecture=architecture).asm["ptx"]
    assert "ld.global.v2.b32" in ptx
    assert "ld.global.v4" not in ptx
