"""The CUDA source: its arithmetic as C++, its compilation for GPUs, and what launches it.

Every other test of a backend runs the whole kernel too, as the backend ``cupy-host``: see conftest.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend
from rotary_spec_backends.kernels import cupy_rotation
from tests import oracle
from tests.backends.cuda_on_host import CONTRACTION, cuda_on_host, library
from tests.backends.test_rotate import assert_rotated

VARIANTS = {
    "bfloat16 half": (rs.RotarySpec(128, layout="half"), "bfloat16"),
    "float16 interleaved": (rs.RotarySpec(128), "float16"),
    "float32 crossed": (rs.RotarySpec(64, layout="half", output_layout="interleaved"), "float32"),
    "bfloat16 partial": (rs.RotarySpec(128, rotary_dim=32, rotary_start=64), "bfloat16"),
    "float16 uneven": (rs.RotarySpec(10, rotary_dim=6, rotary_start=3, layout="half"), "float16"),
}


@pytest.fixture
def on_host() -> Iterator[Backend]:
    with cuda_on_host() as backend:
        yield backend


def launches(
    on_host: Backend, spec: rs.RotarySpec, dtype: str, seq: int = 5
) -> tuple[cupy_rotation.Launch, ...]:
    x = on_host.framework.asarray(np.ones((2, 3, seq, spec.head_dim)), dtype)
    planned = cupy_rotation._plan((x,), (x,), (False,), np.arange(seq), spec, (-2,), None)
    assert not isinstance(planned, str)
    return planned


@pytest.mark.parametrize("contraction", CONTRACTION)
def test_cos_sin(on_host: Backend, contraction: str) -> None:
    """Within 1 ulp (2^-24) over all phases, whether or not products and sums are contracted."""
    macros = launches(on_host, rs.RotarySpec(8), "float32")[0].macros
    table = library(macros, "-O2", "-march=native", contraction).table
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, 2**64, 2**18, dtype=np.uint64)
    edges = np.arange(8, dtype=np.uint64)[:, None] << np.uint64(61)
    near = edges + (2.0 ** rng.uniform(0, 60, 2**12)).astype(np.uint64)
    phases = np.concatenate([anywhere, near.ravel(), (-near).ravel(), edges.ravel()])
    cos, sin = (np.empty(phases.size, np.float32) for _ in range(2))
    table(phases.size, *(ctypes.c_void_p(a.ctypes.data) for a in (phases, cos, sin)))
    # 53 bits of the phase: 2^-53 turn is 2^-26 of the bound.
    angle = 2 * np.pi * (phases.astype(np.float64) * 2.0**-64)
    assert np.max(np.abs(cos - np.cos(angle))) <= 2.0**-24
    assert np.max(np.abs(sin - np.sin(angle))) <= 2.0**-24


def test_far_positions(on_host: Backend) -> None:
    """x = (1, 0) shows cos and sin of the kernel at positions up to 2^31."""
    rng = np.random.default_rng(1)
    positions = np.asarray([0, -1, 2**31 - 1, -(2**31), *rng.integers(-(2**31), 2**31, 96)])
    spec = rs.RotarySpec(128, base=5e5, layout="half")
    x = np.zeros((positions.size, 128), np.float32)
    x[:, :64] = 1.0
    y = on_host.rotate(x, positions, spec).astype(np.float64)
    for found, exact in zip(np.split(y, 2, axis=-1), oracle.cos_sin(positions, spec)):
        assert np.max(np.abs(found - exact)) <= 2.0**-24


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory(on_host: Backend, variant: str) -> None:
    """Tokens first and heads first, more of them than a block, q and k in one launch, in place."""
    spec, dtype = VARIANTS[variant]
    for axis, shapes in ((-2, [(2, 3, 40), (2, 1, 40)]), (1, [(2, 40, 3), (2, 40, 1)])):
        q, k = (
            on_host.framework.asarray(
                np.random.default_rng(i).normal(size=(*shape, spec.head_dim)), dtype
            )
            for i, shape in enumerate(shapes)
        )
        positions = np.arange(40) * 1000
        for y, x in zip(on_host.rotate((q, k), positions, spec, seq_axis=axis), (q, k)):
            y, x = (np.moveaxis(a, axis, -2) for a in (y, x))
            assert_rotated(on_host, y, x, positions, spec)
        before = q.copy()
        on_host.rotate(q, positions, spec, seq_axis=axis, out=q)
        y, x = (np.moveaxis(a, axis, -2) for a in (q, before))
        assert_rotated(on_host, y, x, positions, spec)


def test_widths(on_host: Backend) -> None:
    """The widest access that lanes, strides and addresses allow."""

    def width(spec: rs.RotarySpec, dtype: str) -> str:
        return next(m for m in launches(on_host, spec, dtype)[0].macros if "WIDTH" in m)

    assert width(rs.RotarySpec(128), "bfloat16") == "-DWIDTH=8"
    assert width(rs.RotarySpec(128), "float32") == "-DWIDTH=4"
    assert width(rs.RotarySpec(128, rotary_dim=32, rotary_start=4), "float16") == "-DWIDTH=4"
    assert width(rs.RotarySpec(80, layout="half"), "bfloat16") == "-DWIDTH=8"
    assert width(rs.RotarySpec(10), "bfloat16") == "-DWIDTH=1"


def test_routes(on_host: Any) -> None:
    x = np.ones((2, 3, 5, 16))
    assert on_host.route(x.astype("float32"), range(5), rs.RotarySpec(16)) == "cuda"
    assert on_host.route(x, range(5), rs.RotarySpec(16)) == "elementwise (cuda: float64)"
    spec = rs.RotarySpec(16, sections=(4, 4))
    assert "multi-axis" in on_host.route(x.astype("float32"), np.zeros((2, 5), int), spec)


def nvcc() -> Callable[[tuple[str, ...], int], None]:
    """Compile with the CUDA toolkit."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("nvcc is not installed")

    def compile_source(macros: tuple[str, ...], architecture: int) -> None:
        path = Path(cupy_rotation.__file__).with_name("rotation.cu")
        target = ["-std=c++17", f"-arch=sm_{architecture}", "-cubin", "-o", "/dev/null"]
        done = subprocess.run(
            [compiler, *target, *macros, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return compile_source


def nvrtc() -> Callable[[tuple[str, ...], int], None]:
    """Compile as CuPy does."""
    pytest.importorskip("cupy")
    from cupy.cuda import nvrtc as compiler

    try:
        compiler.getVersion()
    except Exception as error:  # CuPy finds no library: not one type for all the ways
        pytest.skip(f"NVRTC cannot be used: {type(error).__name__}")

    def compile_source(macros: tuple[str, ...], architecture: int) -> None:
        program = compiler.createProgram(cupy_rotation.source(), "rotation.cu", [], [])
        options = ["-std=c++17", f"-arch=sm_{architecture}", *macros]
        try:
            compiler.compileProgram(program, options)
        except compiler.NVRTCError:
            raise AssertionError(compiler.getProgramLog(program)) from None
        assert compiler.getCUBIN(program)

    return compile_source


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("compiler", [nvcc, nvrtc], ids=["nvcc", "nvrtc"])
def test_compiles(on_host: Backend, compiler: Any, architecture: int) -> None:
    compile_source = compiler()
    for spec, dtype in VARIANTS.values():
        compile_source(launches(on_host, spec, dtype)[0].macros, architecture)
