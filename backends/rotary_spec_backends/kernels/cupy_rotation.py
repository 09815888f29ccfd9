"""The CUDA kernel on CuPy arrays: what it takes, its launches, and the compilation."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from rotary_spec._array import dtype_name
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants
from rotary_spec_backends.frameworks import Array
from rotary_spec_backends.kernels.geometry import (
    MOST,
    UNEVEN,
    Rows,
    heads_first,
    in_twos,
    rows_of,
    rows_per_program,
    signed_turns,
    widest,
)

Arrays = tuple[Array, ...]

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
POSITION = {"int32": "int", "int64": "long long"}
_ACCESS = 16  # bytes in the widest access of one thread
_THREADS = 128
_UNROLL = 4


class _Array(NamedTuple):
    """What a launch depends on of an array and its target: shape, strides in bytes, and so on."""

    dtype: str
    shape: tuple[int, ...]
    source: tuple[int, ...]
    target: tuple[int, ...]
    axis: int
    in_place: bool
    alignment: int


class Launch(NamedTuple):
    """One launch: the arrays by index, the kernel by its macros, the grid, and the arguments."""

    first: int
    second: int
    macros: tuple[str, ...]
    blocks: int
    threads: int
    arguments: tuple[Any, ...]


def refusal(
    arrays: Arrays,
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Why `rotate` does not take a call, or None where it does."""
    planned = _plan(arrays, arrays, (False,) * len(arrays), positions, spec, axes, seq_len)
    return planned if isinstance(planned, str) else None


def rotate_into(
    outs: Arrays,
    arrays: Arrays,
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Rotate into checked memory, or say why the kernel does not."""
    in_place = tuple(address(x) == address(y) for x, y in zip(arrays, outs))
    if spec.output_layout is not None and any(in_place):
        return "layouts that differ, in place"  # threads would overwrite what others still read
    planned = _plan(arrays, outs, in_place, positions, spec, axes, seq_len)
    if isinstance(planned, str):
        return planned
    if dtype_name(positions) not in POSITION:
        positions = positions.astype(np.int64)
    for launch in planned:
        i, j = launch.first, launch.second
        run(launch, (arrays[i], outs[i], arrays[j], outs[j], positions), spec, seq_len)
    return None


def address(x: Array) -> int:
    """Where the first element lies."""
    return int(x.data.ptr)


def _plan(
    arrays: Arrays,
    outs: Arrays,
    in_place: tuple[bool, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> tuple[Launch, ...] | str:
    """The launches of a call, or why there are none."""
    if any(x.device != positions.device for x in (*arrays, *outs)):
        return "the arrays are on different devices"
    if any(dtype_name(x) == "bfloat16" for x in arrays) and _capability(positions) < 80:
        return "bfloat16 below compute capability 8.0"
    described = tuple(
        _Array(
            dtype_name(x), x.shape, x.strides, y.strides, axis, same,
            _alignment(address(x) | address(y)),
        )
        for x, y, axis, same in zip(arrays, outs, axes, in_place)
    )  # fmt: skip
    where = dtype_name(positions), positions.shape, positions.strides, positions.itemsize
    return _launches(described, where, spec, seq_len)


def _capability(x: Array) -> int:
    return int(x.device.compute_capability)


def _alignment(bits: int) -> int:
    return min(_ACCESS, bits & -bits) if bits else _ACCESS


@lru_cache(maxsize=4096)
def _launches(
    arrays: tuple[_Array, ...],
    positions: tuple[str, tuple[int, ...], tuple[int, ...], int],
    spec: RotarySpec,
    seq_len: int | None,
) -> tuple[Launch, ...] | str:
    if spec.sections is not None:
        return "multi-axis positions"
    position_dtype, position_shape, position_strides, position_size = positions
    steps = _steps(position_strides, position_size)
    every: list[Rows] = []
    for x in arrays:
        if x.dtype not in ITEMSIZE:
            return x.dtype
        source, target = (_steps(s, ITEMSIZE[x.dtype]) for s in (x.source, x.target))
        if source[-1] != 1 or target[-1] != 1:
            return "lanes that are not neighbours in memory"
        rows = rows_of(x.shape, source, target, x.axis, position_shape, steps)
        if rows is None or rows.tokens.count >= MOST or rows.count >= MOST:
            return UNEVEN
        every.append(rows)
    _, magnitude = constants(spec, seq_len)
    keys = [(rows.tokens, x.dtype, x.in_place) for rows, x in zip(every, arrays)]
    launches = []
    for i, j in in_twos(keys):
        both = (every[i],) if i == j else (every[i], every[j])
        alignment = min(arrays[i].alignment, arrays[j].alignment)
        launch = _launch(i, j, arrays[i], both, alignment, position_dtype, spec, magnitude)
        if isinstance(launch, str):
            return launch
        if launch.blocks:
            launches.append(launch)
    return tuple(launches)


def _steps(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(stride // itemsize for stride in strides)


def _launch(
    i: int,
    j: int,
    x: _Array,
    rows: tuple[Rows, ...],
    alignment: int,
    position_dtype: str,
    spec: RotarySpec,
    magnitude: float,
) -> Launch | str:
    after = spec.rotary_start + spec.rotary_dim
    offsets = [step for r in rows for step in (*r.source, *r.target)]
    width = widest(alignment // ITEMSIZE[x.dtype], [*offsets, spec.rotary_start, spec.pairs, after])
    lanes = spec.pairs // width
    if lanes > 1024:
        return f"{lanes} accesses per row, more than a block has threads"
    threads = max(_THREADS, -(-lanes // 32) * 32)
    tokens, tokens_of_block = rows[0].tokens, threads // lanes
    blocks = -(-tokens.count // tokens_of_block)
    each = rows_per_program(blocks * sum(r.count for r in rows))
    chunks = [-(-r.count // each) for r in rows]
    sign = -1.0 if spec.inverse else 1.0
    macros = {
        f"ELEMENT_{x.dtype.upper()}": 1,
        "POSITION": POSITION.get(position_dtype, POSITION["int64"]),
        "WIDTH": width,
        "START": spec.rotary_start,
        "PAIRS": spec.pairs,
        "HEAD_DIM": spec.head_dim,
        "INTERLEAVED": int(spec.layout == "interleaved"),
        "OUTPUT_INTERLEAVED": int((spec.output_layout or spec.layout) == "interleaved"),
        "COPY": int(not x.in_place and spec.rotary_dim < spec.head_dim),
        "TOKENS": tokens_of_block,
        "UNROLL": _UNROLL,
    }
    none = Rows(tokens, 0, 1, rows[0].source, rows[0].target)
    return Launch(
        i,
        j,
        tuple(f"-D{name}={value}" for name, value in macros.items()),
        blocks * sum(chunks),
        threads,
        (
            np.int32(tokens.count),
            np.int32(tokens.sequence),
            np.int64(tokens.position_batch),
            np.int64(tokens.position_token),
            np.float32(magnitude),
            np.float32(sign * magnitude),
            np.int32(each),
            np.int32(heads_first(rows[-1])),
            *_array_arguments(rows[0], chunks[0]),
            *(_array_arguments(none, 0) if i == j else _array_arguments(rows[1], chunks[1])),
        ),
    )


def _array_arguments(rows: Rows, chunks: int) -> tuple[Any, ...]:
    counts = (chunks, rows.count, rows.heads)
    return (*map(np.int32, counts), *map(np.int64, (*rows.source, *rows.target)))


def run(launch: Launch, arrays: Arrays, spec: RotarySpec, seq_len: int | None) -> None:
    """Launch on the device of the arrays, in its current stream."""
    with arrays[0].device:
        turns = _turns(spec, seq_len, arrays[0].device.id)
        _kernel(launch.macros)(
            (launch.blocks,), (launch.threads,), (*arrays, turns, *launch.arguments)
        )


@lru_cache(maxsize=256)
def _turns(spec: RotarySpec, seq_len: int | None, device: int) -> Array:
    import cupy

    return cupy.asarray(np.asarray(signed_turns(spec, seq_len), dtype=np.int64))


@cache
def source() -> str:
    """The CUDA source of the kernel."""
    return (files(__package__) / "rotation.cu").read_text(encoding="utf-8")


@cache
def _kernel(macros: tuple[str, ...]) -> Any:
    import cupy

    return cupy.RawModule(code=source(), options=("-std=c++17", *macros)).get_function(
        "rotate_rows"
    )
