"""Large pages for new memory."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache
from typing import Any

LARGE = 2**22
"""Bytes from which NumPy asks for large pages itself."""

_PAGE = 2**21


def prefer_large_pages(address: int, size: int) -> None:
    """Ask that memory nobody has written yet be paged in 2 MiB at a time, where Linux does so.

    Writing it then costs one page fault for 512, about a third of the time of a rotation into new
    memory. NumPy asks for its own arrays; PyTorch does only where THP_MEM_ALLOC_ENABLE=1 was set
    before it started. It is advice: the memory stays its owner's in every way, and a refusal is
    none of the caller's business.
    """
    advise = _advise() if size >= LARGE else None
    if advise is not None:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(start, length, mmap.MADV_HUGEPAGE)


def page_in(address: int, size: int) -> None:
    """`prefer_large_pages`, and have them at once: single bytes of the memory are set to 0.

    Where several threads write one page first, all wait for one that clears it, and for longer than
    it takes. It is worth while where an operation writes its output little by little.
    """
    prefer_large_pages(address, size)
    if size >= LARGE:
        for at in range(-(-address // _PAGE) * _PAGE, address + size, _PAGE):
            ctypes.memset(at, 0, 1)


@cache
def _advise() -> Callable[[int, int, int], Any] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return advise
