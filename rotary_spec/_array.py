"""What the reference asks of an array's namespace beyond the Array API standard."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from array_api_compat import array_namespace as _compat_namespace
from array_api_compat import device as _compat_device
from array_api_compat import is_dask_array

from rotary_spec.errors import DtypeError

Array = Any
"""An array of any Array API namespace; static types cannot name them all."""
Namespace = Any
"""An array API namespace, as `array_api_compat.array_namespace` gives it."""

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
COORDINATE_DTYPES = ("float32", "float64")
INTEGER_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY_NAMES = {
    np.dtype(name): name for name in (*FLOAT_DTYPES, *INTEGER_DTYPES) if name != "bfloat16"
}


def namespace_of(**arrays: Array) -> Namespace:
    """The common namespace of the named arrays.

    Raises
    ------
    DtypeError
        If one is not an array, or they belong to different frameworks.
    """
    try:
        return _compat_namespace(*arrays.values())
    except TypeError:
        kinds = {name: f"{type(a).__module__}.{type(a).__name__}" for name, a in arrays.items()}
        given = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        if len(kinds) == 1:
            raise DtypeError(
                f"expected an array (NumPy, PyTorch, JAX, CuPy, ...); {given}"
            ) from None
        raise DtypeError(
            f"{' and '.join(kinds)} must be arrays of one framework (NumPy, PyTorch, JAX, CuPy, "
            f"...); {given}"
        ) from None


def device_of(x: Array) -> Any:
    """The device of ``x``, or None for lazy arrays that have none."""
    device = getattr(x, "device", None)
    if device is None or inspect.ismethod(device):  # lazy arrays, and frameworks as they were
        return _compat_device(x)
    return device


def dtype_name(x: Array) -> str:
    """``x.dtype`` without its framework: "float32", "bfloat16", "int64", ..."""
    # NumPy puts a name together every time, which takes longer than all else in a check.
    name = _NUMPY_NAMES.get(x.dtype) if isinstance(x, np.ndarray) else None
    return name or str(x.dtype).rpartition(".")[2]


def has_dtype(xp: Namespace, name: str, like: Array) -> bool:
    """Whether the namespace has 64-bit ``name`` on the device of ``like``."""
    return name in xp.__array_namespace_info__().dtypes(device=device_of(like))


def widest_float(xp: Namespace, like: Array) -> Any:
    """The dtype the reference computes in: float64 where there is one, else float32."""
    return xp.float64 if has_dtype(xp, "float64", like) else xp.float32


def holds(condition: Array, xp: Namespace) -> bool:
    """Whether a boolean 0-d array is True, as far as can be seen: a value that cannot be looked
    at now (lazy, or traced by JAX, ``torch.compile`` or ``vmap``) is given the benefit of doubt.
    """
    compiler = getattr(xp, "compiler", None)  # PyTorch's
    if (compiler is not None and compiler.is_compiling()) or is_dask_array(condition):
        return True
    try:
        return bool(condition)
    except (TypeError, RuntimeError):  # what a tracer of JAX raises, and a tensor under vmap
        return True


def move_axis(x: Array, source: int, destination: int, xp: Namespace) -> Array:
    """``xp.moveaxis``, and ``x`` itself where there is nothing to move."""
    return x if source == destination else xp.moveaxis(x, source, destination)
