"""What only a CUDA device can show. Every other test of a backend runs on it too; see conftest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, available, for_array, select
from tests import oracle
from tests.backends.cuda import CUDA, GPU_BACKENDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA, reason="no CUDA device: backends are tested on the CPU alone"),
]


def on_gpu(name: str) -> Backend:
    status = next(s for s in available() if s.name == name)
    if not status.usable:
        pytest.skip(str(status.reason))
    if "cuda:0" not in status.devices:
        pytest.skip(f"{name} is built without CUDA; it has {', '.join(status.devices)}")
    return select(name, device="cuda:0")


@pytest.mark.parametrize("name", [name.removesuffix("-cuda") for name in GPU_BACKENDS])
def test_device(name: str) -> None:
    """Host ids follow the array to its device, and the result stays there."""
    backend = on_gpu(name)
    x = backend.framework.asarray([[1.0] * 8] * 4, "float32")
    assert for_array(x).name == name
    assert backend.rotate(x, range(4), rs.RotarySpec(8)).device == x.device
    backend.framework.synchronize()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(("name", "kernel"), [("torch", "triton"), ("cupy", "cuda")])
def test_kernel(name: str, kernel: str, layout: Any, dtype: str) -> None:
    """The sizes of a model go through the kernel, out of place and in place, whole and partial."""
    backend: Any = on_gpu(name)
    rng = np.random.default_rng(0)
    positions = np.sort(rng.integers(0, 2**31, 300))
    for spec in (rs.RotarySpec(128, layout=layout), rs.RotarySpec(128, 5e5, layout, None, 32, 64)):
        q, k = (
            backend.framework.asarray(rng.normal(size=(2, 300, heads, 128)), dtype)
            for heads in (8, 2)
        )
        ids = backend.framework.asarray(positions, "int64")
        assert backend.route((q, k), ids, spec, seq_axis=1) == kernel
        expected = [oracle_of(backend, x, positions, spec) for x in (q, k)]
        for out in (None, (q, k)):
            for y, (exact, bound) in zip(
                backend.rotate((q, k), ids, spec, seq_axis=1, out=out), expected
            ):
                assert np.all(np.abs(backend.framework.to_numpy(y) - exact) <= bound)


def oracle_of(backend: Any, x: Any, positions: Any, spec: rs.RotarySpec) -> tuple[Any, Any]:
    """The rotation of (batch, seq, heads, lanes) and how far it may be off."""
    host = np.swapaxes(backend.framework.to_numpy(x), 1, 2)
    exact = oracle.rotate(host, positions, spec)
    bound = oracle.tolerance(host, positions, spec, "float32", backend.framework.dtype_of(x))
    return np.swapaxes(exact, 1, 2), np.swapaxes(bound, 1, 2)


@pytest.mark.parametrize("name", ["torch", "cupy"])
@pytest.mark.parametrize("tokens_first", [True, False])
def test_more_than_two_to_the_31_elements(name: str, tokens_first: bool) -> None:
    """Offsets are of 64 bits: the last rows are as right as the first. 9 GB."""
    backend: Any = on_gpu(name)
    seq, heads = 2**17 + 3, 2**7 + 1  # times 128 lanes: 2^31 and more
    shape = (seq, heads, 128) if tokens_first else (heads, seq, 128)
    if name == "torch":
        import torch

        x = torch.ones(shape, dtype=torch.bfloat16, device="cuda:0")
        ids = torch.arange(seq, device="cuda:0")
    else:
        import cupy
        import ml_dtypes

        x = cupy.ones(shape, dtype=ml_dtypes.bfloat16)
        ids = cupy.arange(seq)
    spec = rs.RotarySpec(128, layout="half")
    y = backend.rotate(x, ids, spec, seq_axis=0 if tokens_first else 1)
    tail = backend.framework.to_numpy(y[-2:, -2:])
    found = np.swapaxes(tail, 0, 1) if tokens_first else tail
    host, last = np.ones((2, 2, 128)), np.asarray([seq - 2, seq - 1])
    bound = oracle.tolerance(host, last, spec, "float32", "bfloat16")
    assert np.all(np.abs(found - oracle.rotate(host, last, spec)) <= bound)


def test_auto_prefers_an_accelerator() -> None:
    assert select("auto").name != "numpy"
