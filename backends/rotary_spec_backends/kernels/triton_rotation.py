"""Launching the Triton kernel: what it takes, and how large its blocks are."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.kernels.geometry import Rows, heads_first, rows_per_program, widest

THREADS = 128
ACCESS = 16  # bytes in the widest access of one thread
_CONSTANTS = 13
"""How many of the kernel's last arguments are compiled into it."""


@cache
def unavailable() -> str | None:
    """Why there is no Triton, or None where it can be imported."""
    try:
        from rotary_spec_backends.kernels import triton_kernel  # noqa: F401
    except Exception as error:  # it loads a compiler and a driver, which fail in their own ways
        return f"Triton cannot be used: {error}"
    return None


def launch(
    rows: tuple[Rows, ...], spec: RotarySpec, magnitude: float, itemsize: int, in_place: bool
) -> tuple[int | float, ...]:
    """The number of programs, and the kernel's arguments after its pointers, for one array or two.

    Parameters
    ----------
    rows : tuple of one or two Rows
        Of the same tokens.
    spec : RotarySpec
    magnitude : float
    itemsize : int
        Bytes of an element.
    in_place : bool
        Whether the lanes that pass through are already where they belong.
    """
    tokens = rows[0].tokens
    steps = [step for r in rows for step in (*r.source, *r.target)]
    width = widest(ACCESS // itemsize, steps)
    before = 0 if in_place else spec.rotary_start
    after = 0 if in_place else spec.head_dim - spec.rotary_start - spec.rotary_dim
    pairs_block = _power_of_two(spec.pairs)
    # One 16-byte access per thread for each member of the pairs; fewer where the lanes that pass
    # through would take too many registers.
    span = max(pairs_block, _power_of_two(max(before, after, 1)) // 4)
    block = max(1, THREADS * (ACCESS // itemsize) // span)
    blocks = -(-tokens.count // block)
    each = rows_per_program(blocks * sum(r.count for r in rows))
    chunks = [-(-r.count // each) for r in rows]
    other = rows[-1]
    tail = 1 if len(rows) == 2 else 0
    sign = -1.0 if spec.inverse else 1.0
    output_layout = spec.output_layout or spec.layout
    return (
        blocks * sum(chunks),
        tokens.count,
        tokens.sequence,
        tokens.position_batch,
        tokens.position_token,
        magnitude,
        sign * magnitude,
        each,
        *_array_arguments(rows[0], chunks[0], width),
        *_array_arguments(other, tail * chunks[-1], width),
        tail,
        int(heads_first(other)),  # neighbours in memory run together
        int(spec.layout == "interleaved"),
        int(output_layout == "interleaved"),
        spec.rotary_start,
        spec.pairs,
        pairs_block,
        before,
        after,
        _power_of_two(max(before, 1)),
        _power_of_two(max(after, 1)),
        block,
        width,
    )


def _array_arguments(rows: Rows, chunks: int, width: int) -> tuple[int, ...]:
    steps = (step // width for step in (*rows.source, *rows.target))
    return (chunks, rows.count, rows.heads, *steps)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def interpreted() -> bool:
    """Whether the kernel runs on the CPU, through Triton's interpreter."""
    if os.environ.get("TRITON_INTERPRET") != "1" or unavailable() is not None:
        return False
    from rotary_spec_backends.kernels import triton_kernel

    return bool(triton_kernel.INTERPRETED)


_compiled: dict[Any, Any] = {}


def run(pointers: tuple[Any, ...], arguments: tuple[Any, ...], device: int) -> None:
    """Launch on the current device, which is ``device``, and its current stream.

    Parameters
    ----------
    pointers : tuple of tensors
        As the kernel names them.
    arguments : tuple
        From `launch`.
    device : int
        Its index; -1 for the CPU.
    """
    grid, arguments = (arguments[0], 1, 1), arguments[1:]
    # Triton's own way to a compiled kernel looks at every argument and takes 20 us; what decides
    # between two compilations here is known beforehand.
    aligned = not any(pointer.data_ptr() % ACCESS for pointer in pointers[:4])
    key = (device, pointers[0].dtype, pointers[4].dtype, arguments[-_CONSTANTS:])
    compiled = _compiled.get(key) if aligned else None
    if compiled is not None:
        compiled[grid](*pointers, *arguments)
        return
    from rotary_spec_backends.kernels.triton_kernel import INTERPRETED, rotate_rows

    # Contraction changes nothing that matters here (see `triton_kernel.cos_sin`), and not asking
    # leaves it to a default that Triton is changing.
    compiled = rotate_rows[grid](
        *pointers, *arguments, num_warps=THREADS // 32, enable_fp_fusion=True
    )
    if aligned and not INTERPRETED and _launches_by_signature():
        _compiled[key] = compiled


@cache
def _launches_by_signature() -> bool:
    """Whether a compiled kernel takes the arguments that its source names: from Triton 3.3 on."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 3)
