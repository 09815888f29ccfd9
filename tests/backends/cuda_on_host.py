"""The CUDA kernel as C++: one thread after the other, on NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from rotary_spec_backends.cupy_backend import CupyBackend
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_backends.kernels import cupy_rotation
from rotary_spec_backends.kernels.geometry import signed_turns

COMPILER = shutil.which("g++") or shutil.which("clang++")

# What a CUDA compiler has and a C++ compiler has not. Rounding to nearest, ties to even, is that of
# the hardware's cvt.rn; C++ compilers convert _Float16 likewise.
_PRELUDE = """
#include <cstdlib>
#include <cstring>
#include <algorithm>
using std::min;
#define DEVICE static inline
#define KERNEL static
static struct { int x; } blockIdx, threadIdx;
#if defined(ELEMENT_FLOAT32)
typedef float Element;
static float to_float(Element x) { return x; }
static Element from_float(float x) { return x; }
#elif defined(ELEMENT_FLOAT16)
typedef _Float16 Element;
static float to_float(Element x) { return (float)x; }
static Element from_float(float x) { return (Element)x; }
#else
typedef unsigned short Element;
static float to_float(Element x) {
    unsigned bits = (unsigned)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
static Element from_float(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#endif
"""

_MAIN = """
extern "C" void launch(int blocks, int threads, {parameters}) {{
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) rotate_rows({names});
}}
extern "C" void table(int n, const unsigned long long *phases, float *cos, float *sin) {{
    for (int i = 0; i < n; ++i) cos_sin(phases[i], cos[i], sin[i]);
}}
"""

CONTRACTION = ("-ffp-contract=off", "-ffp-contract=fast")


@cache
def library(macros: tuple[str, ...], *flags: str) -> Any:
    """The kernel as a shared library with ``launch`` and ``table``."""
    assert COMPILER is not None
    code = cupy_rotation.source()
    parameters = code.split("rotate_rows(")[1].split(")")[0]
    names = ", ".join(p.split()[-1].lstrip("*") for p in parameters.split(","))
    folder = Path(mkdtemp(prefix="rotary-spec-"))
    main = _MAIN.format(parameters=parameters, names=names)
    (folder / "rotation.cpp").write_text(_PRELUDE + code + main, encoding="utf-8")
    command = [COMPILER, "-std=c++17", "-shared", "-fPIC", "-w", *flags, *macros]
    done = subprocess.run(
        [*command, "rotation.cpp", "-o", "rotation.so"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = ctypes.CDLL(str(folder / "rotation.so"))
    shutil.rmtree(folder)  # it stays mapped
    return found


_C_TYPES = {"int32": ctypes.c_int, "int64": ctypes.c_longlong, "float32": ctypes.c_float}


def _run(launch: Any, arrays: Any, spec: Any, seq_len: Any) -> None:
    turns = np.asarray(signed_turns(spec, seq_len), dtype=np.int64)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, turns)]
    scalars = [_C_TYPES[a.dtype.name](a.item()) for a in launch.arguments]
    library(launch.macros, "-O0").launch(launch.blocks, launch.threads, *pointers, *scalars)


class CudaOnHost(CupyBackend):
    """The CuPy backend on NumPy arrays, with the kernel compiled as C++."""

    framework_type = NumpyFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    def _ids(self, positions: Any, like: Any) -> Any:
        return positions


@contextmanager
def cuda_on_host() -> Iterator[CudaOnHost]:
    """A backend that runs the CUDA source on the CPU; skip without a C++ compiler."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: neither g++ nor clang++")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy_rotation, "run", _run)
        patch.setattr(cupy_rotation, "address", lambda x: x.ctypes.data)
        patch.setattr(cupy_rotation, "_capability", lambda x: 80)
        yield CudaOnHost("cpu")
