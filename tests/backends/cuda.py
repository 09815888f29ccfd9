"""Whether there is a CUDA device, asked of the driver: importing three frameworks takes seconds."""

from __future__ import annotations

import ctypes

GPU_BACKENDS = ("torch-cuda", "jax-cuda", "cupy-cuda")


def _device_count() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


CUDA = _device_count() > 0
