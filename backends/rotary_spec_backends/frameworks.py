"""Host to framework and back: the few array operations that differ from one framework to the next.

A framework is imported when one of its arrays is made, never before.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from rotary_spec._array import dtype_name

Array = Any
HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Memory:
    """Where the elements of an array lie: address, and strides in bytes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    writable: bool = True

    def same_as(self, other: Memory) -> bool:
        """Whether every index leads to the same element."""
        return (self.address, self.strides) == (other.address, other.strides)

    @cached_property
    def span(self) -> tuple[int, int]:
        """The first byte of its elements, and the one after the last."""
        if 0 in self.shape:
            return self.address, self.address
        steps = [stride * (size - 1) for stride, size in zip(self.strides, self.shape)]
        low = self.address + sum(step for step in steps if step < 0)
        return low, self.address + sum(step for step in steps if step > 0) + self.itemsize


class Framework(ABC):
    """Arrays of one framework on one device.

    Parameters
    ----------
    device : str or None
        Where new arrays go, in the framework's own words; None is the framework's default.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float16", "bfloat16", "float64")
    differentiable: ClassVar[bool] = False
    mutable: ClassVar[bool] = True
    """Whether arrays can be written into."""

    def __init__(self, device: str | None = None) -> None:
        self.device = device

    @property
    def xp(self) -> ModuleType:
        """The framework's main module, imported on first use."""
        return import_module(self.module)

    @classmethod
    def owns(cls, x: object) -> bool:
        """Whether ``x`` is an array of this framework; imports nothing."""
        module = sys.modules.get(cls.module)
        return module is not None and isinstance(x, cls._array_type(module))

    @classmethod
    @abstractmethod
    def _array_type(cls, module: ModuleType) -> type: ...

    def supported_dtypes(self) -> tuple[str, ...]:
        """Floating dtypes that can be used here and now, by name."""
        return self.dtypes

    @abstractmethod
    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        """A new array on this device from host values, rounded to ``dtype``."""

    @abstractmethod
    def to_numpy(self, x: Array) -> HostArray:
        """Host copy: floats as float64 (which holds them exactly), integers as int64."""

    def dtype_of(self, x: Array) -> str:
        """``x.dtype`` by its bare name, such as "bfloat16"."""
        return dtype_name(x)

    def gradient(self, function: Callable[[Array], Array], x: Array, seed: Array) -> Array:
        """Gradient of ``sum(function(x) * seed)`` with respect to ``x``.

        Raises
        ------
        NotImplementedError
            If the framework does not differentiate (see `differentiable`).
        """
        raise NotImplementedError(f"{self.name} has no automatic differentiation")

    def strided(self, x: Array) -> Array | None:
        """``x``, of four axes, as a view of packed (batch, seq, heads, 2 head_dim) memory.

        None where the framework's arrays have no strides.
        """
        return None

    def memory(self, x: Array) -> Memory | None:
        """Where ``x`` lies; None where it has no memory to speak of."""
        return None

    def take(self, x: Array, lanes: list[int]) -> Array:
        """The listed lanes of the last axis, in that order."""
        return x[..., lanes]

    def synchronize(self) -> None:  # noqa: B027 - a host has nothing to wait for
        """Wait for the device."""


def _widen(host: HostArray) -> HostArray:
    return host.astype(np.int64 if host.dtype.kind in "iu" else np.float64)


class NumpyFramework(Framework):
    """NumPy arrays; bfloat16 where ml_dtypes is installed."""

    name = "numpy"
    module = "numpy"

    @classmethod
    def _array_type(cls, module: ModuleType) -> type:
        return np.ndarray

    def supported_dtypes(self) -> tuple[str, ...]:
        if _bfloat16() is None:
            return tuple(d for d in self.dtypes if d != "bfloat16")
        return self.dtypes

    def dtype(self, name: str) -> Any:
        """The framework's dtype object of that name."""
        if name != "bfloat16":
            return np.dtype(name)
        if (bfloat16 := _bfloat16()) is None:
            raise TypeError("bfloat16 NumPy arrays need ml_dtypes: pip install ml-dtypes")
        return bfloat16

    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        return self.xp.array(np.asarray(values), dtype=self.dtype(dtype))

    def to_numpy(self, x: Array) -> HostArray:
        return _widen(np.asarray(x))

    def strided(self, x: Array) -> Array | None:
        packed = self.xp.concatenate([x, -x], axis=-1).swapaxes(1, 2).copy()
        return packed.swapaxes(1, 2)[..., : x.shape[-1]]

    def memory(self, x: Array) -> Memory | None:
        return Memory(x.ctypes.data, x.shape, x.strides, x.itemsize, x.flags.writeable)


class CupyFramework(NumpyFramework):
    """CuPy arrays on the current CUDA device, or on ``cuda:N``."""

    name = "cupy"
    module = "cupy"

    @classmethod
    def _array_type(cls, module: ModuleType) -> type:
        return module.ndarray  # type: ignore[no-any-return]

    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        index = (self.device or "cuda").partition(":")[2]
        with self.xp.cuda.Device(int(index) if index else None):
            return super().asarray(values, dtype)

    def to_numpy(self, x: Array) -> HostArray:
        return _widen(self.xp.asnumpy(x))

    def memory(self, x: Array) -> Memory | None:
        return Memory(x.data.ptr, x.shape, x.strides, x.itemsize)

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()


@cache
def _settle_functions() -> None:
    """Have PyTorch's elementwise functions called by one thread before several call them.

    With MKL 2024.2, which PyTorch 2.13 brings, the first call of exp, cos, sin or log in a process
    may use a routine of low accuracy on one of its threads: about one time in ten here, off by up
    to 1.5e-4 in half of a float32 array, and by 7e-8 in float64. A table of cos and sin is a first
    call often enough.
    """
    import torch

    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype, device="cpu")
        for function in (torch.exp, torch.cos, torch.sin, torch.log, torch.sqrt, torch.tanh):
            function(one)


class TorchFramework(Framework):
    """PyTorch tensors."""

    name = "torch"
    module = "torch"
    differentiable = True

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        _settle_functions()

    @classmethod
    def _array_type(cls, module: ModuleType) -> type:
        return module.Tensor  # type: ignore[no-any-return]

    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        host = self.xp.from_numpy(np.array(values))
        return host.to(dtype=getattr(self.xp, dtype), device=self.device)

    def to_numpy(self, x: Array) -> HostArray:
        x = x.detach().cpu()
        return _widen((x.double() if x.is_floating_point() else x).numpy())

    def gradient(self, function: Callable[[Array], Array], x: Array, seed: Array) -> Array:
        leaf = x.detach().clone().requires_grad_(True)
        out = function(leaf)
        (gradient,) = self.xp.autograd.grad(out, leaf, seed)
        return gradient

    def strided(self, x: Array) -> Array | None:
        packed = self.xp.cat([x, -x], dim=-1).transpose(1, 2).contiguous()
        return packed.transpose(1, 2)[..., : x.shape[-1]]

    def memory(self, x: Array) -> Memory | None:
        from rotary_spec_backends.torch_derivative import PLAIN, traced

        if traced() or type(x) not in PLAIN:
            return None
        strides = tuple(stride * x.element_size() for stride in x.stride())
        return Memory(x.data_ptr(), tuple(x.shape), strides, x.element_size())

    def synchronize(self) -> None:
        if str(self.device or "").startswith("cuda"):
            self.xp.cuda.synchronize(self.device)


class JaxFramework(Framework):
    """JAX arrays; float64 and int64 where ``jax_enable_x64`` is set."""

    name = "jax"
    module = "jax"
    differentiable = True
    mutable = False

    @classmethod
    def _array_type(cls, module: ModuleType) -> type:
        return module.Array  # type: ignore[no-any-return]

    def supported_dtypes(self) -> tuple[str, ...]:
        if self.xp.config.jax_enable_x64:
            return self.dtypes
        return tuple(d for d in self.dtypes if d != "float64")

    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        if dtype == "int64" and not self.xp.config.jax_enable_x64:
            dtype = "int32"
        device = None
        if self.device is not None:
            platform, _, index = self.device.partition(":")
            device = self.xp.devices(platform)[int(index or 0)]
        numpy_dtype = self.xp.numpy.dtype(dtype)
        return self.xp.device_put(np.array(values).astype(numpy_dtype), device)

    def to_numpy(self, x: Array) -> HostArray:
        return _widen(np.asarray(x))

    def take(self, x: Array, lanes: list[int]) -> Array:
        return self.xp.numpy.take(x, np.asarray(lanes), axis=-1)

    def gradient(self, function: Callable[[Array], Array], x: Array, seed: Array) -> Array:
        _, pull_back = self.xp.vjp(function, x)
        return pull_back(seed)[0]


FRAMEWORKS: dict[str, type[Framework]] = {
    cls.name: cls for cls in (NumpyFramework, TorchFramework, JaxFramework, CupyFramework)
}


def _bfloat16() -> Any:
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return None
    return np.dtype(bfloat16)
