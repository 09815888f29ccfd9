"""Host values to a framework's array and back, rounded once, exact otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rotary_spec_backends import FRAMEWORKS, Backend
from tests import fresh, oracle

VALUES = np.random.default_rng(0).normal(size=(3, 4))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_floats(backend: Backend, dtype: str) -> None:
    framework = backend.framework
    if dtype not in framework.supported_dtypes():
        pytest.skip(f"{backend.name} has no {dtype} here")
    x = framework.asarray(VALUES, dtype)
    assert framework.dtype_of(x) == dtype
    assert framework.owns(x)
    host = framework.to_numpy(x)
    assert host.dtype == np.float64
    assert np.all(np.abs(host - VALUES) <= oracle.UNIT_ROUNDOFF[dtype] * np.abs(VALUES))
    again = framework.to_numpy(framework.asarray(host, dtype))
    assert np.array_equal(again, host)  # exact from here on
    assert framework.to_numpy(framework.asarray(1.5, dtype)) == 1.5  # a scalar is a 0-d array


def test_integers(backend: Backend) -> None:
    framework = backend.framework
    edges = [0, -1, 2**31 - 1, -(2**31)]
    x = framework.asarray(edges, "int64")
    host = framework.to_numpy(x)
    assert host.dtype == np.int64
    assert host.tolist() == edges


def test_asarray_copies(backend: Backend) -> None:
    values = VALUES.copy()
    x = backend.framework.asarray(values, "float32")
    values[:] = 0
    assert np.all(backend.framework.to_numpy(x) != 0)


def test_strided(backend: Backend) -> None:
    """The same values in other memory, or None: never a silent copy back to contiguous."""
    x = backend.framework.asarray(VALUES.reshape(1, 2, 3, 2), "float32")
    strided = backend.framework.strided(x)
    if backend.name == "jax":
        assert strided is None
        return
    assert np.array_equal(backend.framework.to_numpy(strided), backend.framework.to_numpy(x))
    contiguous = strided.is_contiguous() if backend.name == "torch" else strided.flags.c_contiguous
    assert not contiguous


def test_gradient(backend: Backend) -> None:
    framework = backend.framework
    x, seed = (framework.asarray(VALUES + i, "float32") for i in (0, 1))
    if not framework.differentiable:
        with pytest.raises(NotImplementedError, match=f"{framework.name} has no automatic"):
            framework.gradient(lambda x: x, x, seed)
        return
    gradient = framework.gradient(lambda x: 2.0 * x, x, seed)
    assert np.array_equal(framework.to_numpy(gradient), 2 * framework.to_numpy(seed))


def test_owns_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of a framework cannot exist before the framework is imported."""
    import sys

    for framework in FRAMEWORKS.values():
        monkeypatch.delitem(sys.modules, framework.module, raising=False)
    before = set(sys.modules)
    assert not any(framework.owns(VALUES) for framework in FRAMEWORKS.values())
    assert set(sys.modules) == before


def test_numpy_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy has no bfloat16 of its own: not offered, and the error says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    framework: Any = FRAMEWORKS["numpy"]()
    assert framework.supported_dtypes() == ("float32", "float16", "float64")
    with pytest.raises(TypeError, match="pip install ml-dtypes"):
        framework.asarray(VALUES, "bfloat16")


def test_first_functions_of_torch() -> None:
    """A process's first large exp is as good as its second, on two threads too.

    Without the care that `TorchFramework` takes this fails about once in ten runs (PyTorch 2.13).
    """
    pytest.importorskip("torch")
    assert fresh.run(
        """
import json, torch
from rotary_spec_backends.frameworks import TorchFramework
TorchFramework()
torch.set_num_threads(2)
x = -3 * torch.rand(2**19)
x.clone().add_(1)  # both threads are awake
print(json.dumps(bool((x.exp() == x.exp()).all())))
"""
    )
