"""The array namespaces under test: host values in, host values out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

SPACES = ("numpy", "numpy-readonly", "array_api_strict", "torch", "jax", "jax-x64", "dask")


@dataclass(frozen=True)
class Space:
    """One namespace, with the conversions that the standard leaves out."""

    name: str
    asarray: Callable[[Any], Any]
    to_numpy: Callable[[Any], Any]

    @property
    def xp(self) -> Any:
        return array_namespace(self.asarray(np.zeros(1, dtype=np.float32)))

    @property
    def widest(self) -> str:
        """The float that the reference computes in."""
        return "float32" if self.name == "jax" else "float64"

    def has(self, dtype: str) -> bool:
        return self.name != "jax" or dtype not in ("float64", "int64", "uint64")

    def ids(self, positions: Any) -> Any:
        """Position ids: int64, or int32 where there is no int64."""
        return self.asarray(np.asarray(positions, dtype="int64" if self.has("int64") else "int32"))

    def check(self, y: Any, shape: tuple[int, ...], dtype: str) -> Any:
        """Assert namespace, shape and dtype of a result, and give its host copy."""
        assert array_namespace(y) is self.xp
        assert tuple(y.shape) == shape
        assert str(y.dtype).rpartition(".")[2] == dtype
        return self.to_numpy(y)


@contextmanager
def open_space(name: str) -> Iterator[Space]:
    """The namespace of that name, or a skip that says what is not installed."""
    if name == "numpy":
        yield Space(name, np.array, np.asarray)
    elif name == "numpy-readonly":
        yield Space(name, _readonly, np.asarray)
    elif name == "array_api_strict":
        strict = pytest.importorskip("array_api_strict")
        yield Space(name, strict.asarray, np.asarray)
    elif name == "torch":
        torch = pytest.importorskip("torch")
        yield Space(name, lambda x: torch.from_numpy(np.array(x)), lambda y: y.detach().numpy())
    elif name == "dask":
        dask = pytest.importorskip("dask.array")
        # Chunks of 4: the sequence in several, and the pairs of the half layout torn apart.
        yield Space(name, lambda x: dask.from_array(x, chunks=4), lambda y: y.compute())
    else:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True) if name == "jax-x64" else nullcontext():
            yield Space(name, jax.numpy.asarray, np.asarray)


def _readonly(values: Any) -> Any:
    copy = np.array(values)
    copy.flags.writeable = False
    return copy
