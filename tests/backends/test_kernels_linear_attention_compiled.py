"""The linear-attention kernels as a GPU gets them, compiled here without one: how they multiply."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

import rotary_spec as rs

triton = pytest.importorskip("triton")
launch = pytest.importorskip("rotary_spec_backends.kernels.linear_attention_launch")

SHARED_MEMORY = 227 * 1024  # of an H100, for one program


def compiled(kernel: str, dtype: str, width: int = 64, layout: str = "half") -> Any:
    """The kernel as sm_90 gets it, for (8, 16, 4096, width) and as many values."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = "triton_linear_attention" + ("" if kernel == "attend" else "_gradients")
    function = getattr(import_module(f"rotary_spec_backends.kernels.{module}"), kernel)
    strides = (16 * 4096 * width, 4096 * width, width)
    terms = (0, *strides)  # with an axis of blocks in front
    others = {
        "attend": [strides],
        "query_gradients": [strides, terms],
        "key_gradients": [strides, terms, strides],
    }
    size = 4 if dtype == "float32" else 2
    _, warps, stages, *arguments = launch.arguments(
        kernel,  # type: ignore[arg-type]
        launch.Sizes(8, 16, 16, 4096, width),
        rs.RotarySpec(width, layout=layout),  # type: ignore[arg-type]
        None,
        size,
        [*[strides] * 3, *others[kernel], (0, 1)],
        (0.0,) if kernel == "attend" else (),
    )
    pointers = len(function.params) - len(arguments)
    features = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"}
    narrow = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}[dtype]
    signature, constants, aligned = {}, {}, {}
    for i, parameter in enumerate(function.params):
        name = parameter.name
        if i < pointers:
            table = "*i64" if name in ("positions", "pairs") else "*fp32"
            signature[name] = narrow if name in features else table
            aligned[(i,)] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr:
            signature[name] = "constexpr"
            constants[(i,)] = arguments[i - pointers]
        else:
            value = arguments[i - pointers]
            signature[name] = parameter.annotation_type or "i32"
            if isinstance(value, int) and value % 16 == 0:
                aligned[(i,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(function, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    )


@pytest.mark.parametrize("kernel", ["attend", "query_gradients", "key_gradients"])
def test_compiled_for_a_gpu(kernel: str) -> None:
    """By tensor cores; no access to features is of single ones, and loads run ahead of the work."""
    program = compiled(kernel, "bfloat16")
    ptx = program.asm["ptx"]
    assert re.search(r"mma(_async)?\.sync\.aligned\.\S*bf16", ptx)
    if kernel == "attend":
        assert "wgmma.mma_async" in ptx
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global [^,]*, [^,]*, (0x\w+|\d+)", ptx)
    assert 16 in {int(size, 0) for size in copies}
    accesses = re.findall(r"(?:ld|st)\.global\S*", ptx)
    assert any(".v" in access for access in accesses), accesses
    assert not [access for access in accesses if access.endswith("16")], accesses
    assert program.metadata.shared <= SHARED_MEMORY


@pytest.mark.parametrize(
    ("kernel", "dtype", "width", "layout"),
    [("attend", "float32", 128, "interleaved"), ("key_gradients", "float16", 128, "interleaved")],
)
def test_others_compile(kernel: str, dtype: str, width: int, layout: str) -> None:
    program = compiled(kernel, dtype, width, layout)
    kind = "tf32" if dtype == "float32" else "bf16"
    assert re.search(rf"mma\S*{kind}", program.asm["ptx"])
    assert program.metadata.shared <= SHARED_MEMORY
