"""Safetensors files for tests, written and read without the project's own reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import rotary_spec as rs

HALF: dict[str, Any] = {"from_layout": "half", "to_layout": "interleaved", "head_dim": 8}
BACK: dict[str, Any] = {"from_layout": "interleaved", "to_layout": "half", "head_dim": 8}
ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "BOOL": 1, "X9": 3}

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int)) * ITEM_BYTES[dtype]


def llama(dtype: str = "F32", layers: int = 2) -> Shapes:
    """Names and shapes of a model with four heads of q and two of k."""
    shapes: Shapes = {"model.embed_tokens.weight": (dtype, (11, 6))}
    for layer in range(layers):
        attention = f"model.layers.{layer}.self_attn"
        shapes[f"{attention}.k_proj.bias"] = dtype, (16,)
        shapes[f"{attention}.k_proj.weight"] = dtype, (16, 6)
        shapes[f"{attention}.q_norm.weight"] = dtype, (8,)
        shapes[f"{attention}.q_proj.weight"] = dtype, (32, 6)
        shapes[f"{attention}.v_proj.weight"] = dtype, (16, 6)
    return shapes


def write(path: Path, shapes: Shapes, *, metadata: Any = None, pad: bool = True) -> bytes:
    """A safetensors file of random bytes; gives those bytes."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + nbytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    data = np.random.default_rng(0).bytes(end)
    write_raw(path, header, data, pad=pad)
    return data


def write_raw(path: Path, header: Any, data: bytes, *, pad: bool = True) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and raw tensors, without the project's own reader."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name[:2] != "__"}
    return header, {name: raw[start + a : start + b] for name, (a, b) in spans.items()}


def expected(raw: bytes, entry: Any, **options: Any) -> bytes:
    """What `convert_projection` makes of a tensor, on opaque items."""
    dtype = np.dtype((np.void, ITEM_BYTES[entry["dtype"]]))
    array = np.frombuffer(raw, dtype).reshape(entry["shape"])
    return rs.convert_projection(array, **{**HALF, **options}).tobytes()


def assert_nothing_written(out: Path) -> None:
    assert list(out.parent.iterdir()) == []
