"""Triton's interpreter: the kernels on the CPU, one NumPy operation at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

KERNELS = ("triton_kernel", "triton_linear_attention", "triton_linear_attention_gradients")


@contextmanager
def interpreted() -> Iterator[None]:
    """The PyTorch backend takes its Triton kernel for CPU tensors too; skip without Triton."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from rotary_spec_backends import kernels
    from rotary_spec_backends.host import small
    from rotary_spec_backends.kernels import torch_rotation, triton_rotation

    def forget() -> None:
        for kernel in KERNELS:
            sys.modules.pop(f"{kernels.__name__}.{kernel}", None)
            vars(kernels).pop(kernel, None)
        triton_rotation.unavailable.cache_clear()
        torch_rotation._plans.clear()
        small._plans.clear()

    with pytest.MonkeyPatch.context() as patch:
        forget()
        patch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined
        assert triton_rotation.interpreted(), triton_rotation.unavailable()
        _round_to_bfloat16(patch)
        _multiply_as_a_gpu(patch)
        try:
            with _interpreted_language():
                yield
        finally:
            forget()


@contextmanager
def _interpreted_language() -> Iterator[None]:
    """What Triton's language has written in itself, such as sums, where it is imported already.

    To call such a function changes ``tl.core`` and its own module for good (Triton 3.9): they get
    back what they had.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    modules = [vars(module) for module in (tl, tl.core, tl.standard)]
    before = [dict(names) for names in modules]
    interpreted = {
        id(x): InterpretedFunction(x.fn) for x in before[-1].values() if isinstance(x, JITFunction)
    }
    for names in (modules[0], modules[-1]):
        names.update({name: interpreted.get(id(x), x) for name, x in names.items()})
    try:
        yield
    finally:
        for names, old in zip(modules, before):
            names.clear()
            names.update(old)


def _round_to_bfloat16(patch: pytest.MonkeyPatch) -> None:
    """The interpreter truncates float32 to bfloat16, where a GPU rounds to the nearest."""
    import ml_dtypes
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    truncating = InterpreterBuilder.cast_impl

    def rounding(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return truncating(self, source, target)
        with np.errstate(all="ignore"):
            rounded = np.asarray(source.data).astype(ml_dtypes.bfloat16)
        return TensorHandle(rounded.view(np.uint16), tl.bfloat16)

    patch.setattr(InterpreterBuilder, "cast_impl", rounding)


def _multiply_as_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """The interpreter multiplies the bits of bfloat16 as integers, and float32 in full precision.

    On a GPU bfloat16 is multiplied exactly, and "tf32x3" is three products of the leading 11 bits
    of both factors and of what is left of them.
    """
    import ml_dtypes
    import numpy as np
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def leading(x: Any) -> Any:
        return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    def dot(_: Any, a: Any, b: Any, c: Any, precision: Any, *rest: Any) -> Any:
        factors = []
        for x in (a, b):
            kind = ml_dtypes.bfloat16 if x.data.dtype == np.uint16 else x.data.dtype
            factors.append(np.ascontiguousarray(x.data).view(kind).astype(np.float32))
        if a.data.dtype == np.float32:
            assert precision.name == "TF32x3", precision
            (a_high, a_low), (b_high, b_low) = (
                (leading(x), leading(x - leading(x))) for x in factors
            )
            product = a_low @ b_high + a_high @ b_low + a_high @ b_high
        else:
            product = factors[0] @ factors[1]
        return TensorHandle(c.data + product, c.dtype.scalar)

    patch.setattr(InterpreterBuilder, "create_dot", dot)
