"""Triton's interpreter: the kernels on the CPU, one NumPy operation at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

KERNEL = "rotary_spec_backends.kernels.triton_kernel"


@contextmanager
def interpreted() -> Iterator[None]:
    """The PyTorch backend takes its Triton kernel for CPU tensors too; skip without Triton."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from rotary_spec_backends import kernels
    from rotary_spec_backends.kernels import torch_rotation, triton_rotation

    def forget() -> None:
        sys.modules.pop(KERNEL, None)
        vars(kernels).pop("triton_kernel", None)
        triton_rotation.unavailable.cache_clear()
        torch_rotation._plans.clear()

    with pytest.MonkeyPatch.context() as patch:
        forget()
        patch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined
        assert triton_rotation.interpreted(), triton_rotation.unavailable()
        _round_to_bfloat16(patch)
        try:
            yield
        finally:
            forget()


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
