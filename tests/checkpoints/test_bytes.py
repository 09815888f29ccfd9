"""Rows are moved, no other bit is changed, and nothing is held in memory that need not be."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import checkpoints
from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    BACK,
    HALF,
    Shapes,
    expected,
    llama,
    read,
    write,
    write_raw,
)


class TestBytes:
    @pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16", "F8_E4M3", "X9"])
    @pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
    def test_every_tensor(
        self, source: Path, out: Path, dtype: str, chunk: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the dtype means, and wherever the pieces are cut."""
        monkeypatch.setattr(checkpoints, "_CHUNK", chunk)
        write(source, llama(dtype), metadata={"format": "pt"})
        conversion = convert_file(source, out, **HALF)
        header, before = read(source)
        assert read(out)[0] == header
        assert list(read(out)[0]) == list(header)
        for name, raw in read(out)[1].items():
            moved = any(part in name for part in ("q_", "k_"))
            assert raw == (expected(before[name], header[name]) if moved else before[name]), name
        assert conversion.tensors == len(before)
        assert conversion.nbytes == out.stat().st_size == source.stat().st_size
        heads = {one.name: (one.heads, one.rotating) for one in conversion.converted[:4]}
        attention = "model.layers.0.self_attn"
        assert heads == {
            f"{attention}.k_proj.bias": (2, 2),
            f"{attention}.k_proj.weight": (2, 2),
            f"{attention}.q_norm.weight": (1, 1),
            f"{attention}.q_proj.weight": (4, 4),
        }

    def test_there_and_back(self, source: Path, out: Path) -> None:
        write(source, llama(), metadata={"format": "pt", "ключ": "значение"})
        convert_file(source, out, **HALF)
        again = out.with_name("again.safetensors")
        convert_file(out, again, **BACK)
        assert again.read_bytes() == source.read_bytes()
        assert out.read_bytes() != source.read_bytes()

    @pytest.mark.parametrize(
        ("packing", "heads", "kv_heads", "rows"),
        [("concatenated", 4, 2, 64), ("per-head", None, None, 48), ("per-group", 4, 2, 64)],
    )
    @pytest.mark.parametrize("axis", [0, -1])
    @pytest.mark.parametrize("chunk", [1, 500])
    def test_fused(
        self, source: Path, out: Path, packing: Any, heads: Any, kv_heads: Any, rows: int,
        axis: int, chunk: int, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(checkpoints, "_CHUNK", chunk)
        shape = (rows, 6) if axis == 0 else (6, rows)
        shapes: Shapes = {
            "h.0.attn.qkv.bias": ("F16", (rows,)),
            "h.0.attn.qkv.weight": ("F16", shape),
            "h.0.attn.dense.weight": ("F16", (16, 6)),
        }
        write(source, shapes)
        packed = {"heads": heads, "kv_heads": kv_heads, "axis": axis}
        conversion = convert_file(
            source, out, **HALF, qkv=["*.qkv.*"], qkv_packing=packing, **packed
        )
        header, before = read(source)
        for name, raw in read(out)[1].items():
            if "qkv" in name:
                assert raw == expected(before[name], header[name], packing=packing, **packed)
            else:
                assert raw == before[name]
        rotating = {("concatenated", 0): 6, ("per-group", 0): 6}.get((packing, 0), 4)
        assert [one.rotating for one in conversion.converted] == [rotating, rotating]

    def test_partial(self, source: Path, out: Path) -> None:
        write(source, llama())
        lanes = {"rotary_dim": 4, "rotary_start": 3}
        convert_file(source, out, **HALF, **lanes)
        header, before = read(source)
        name = "model.layers.1.self_attn.q_proj.weight"
        assert read(out)[1][name] == expected(before[name], header[name], **lanes)

    def test_any_permutation(self, source: Path, out: Path) -> None:
        write(source, llama())
        order = [7, 0, 5, 1, 2, 6, 4, 3]
        convert_file(source, out, permutation=order, head_dim=8, tensors=["*.q_proj.weight"])
        (_, before), (_, after) = read(source), read(out)
        for name, raw in after.items():
            if name.endswith("q_proj.weight"):
                rows = np.frombuffer(before[name], np.float32).reshape(4, 8, 6)
                assert raw == rows[:, order].tobytes()
            else:
                assert raw == before[name]

    def test_norm_of_every_head(self, source: Path, out: Path) -> None:
        """Cohere's (heads, head_dim): the lanes are last, and eight heads are no eight lanes."""
        write(source, {"h.0.attn.q_norm.weight": ("F32", (8, 8))})
        convert_file(source, out, **HALF)
        (header, before), (_, after) = read(source), read(out)
        name = "h.0.attn.q_norm.weight"
        assert after[name] == expected(before[name], header[name], axis=1)

    def test_header_in_another_order_and_not_aligned(self, source: Path, out: Path) -> None:
        """Names need not be in the order of the bytes; tensors begin at a multiple of 8."""
        entry = {"dtype": "U8", "shape": [8]}
        header = {
            "wq.weight": {**entry, "data_offsets": [8, 16]},
            "wk.weight": {**entry, "data_offsets": [0, 8]},
            "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [16, 16]},
            "scalar": {"dtype": "F32", "shape": [], "data_offsets": [16, 20]},
            "unknown": {"dtype": "Q3", "shape": [5], "data_offsets": [20, 22]},
        }
        text = json.dumps(header).encode()
        text += b" " * (3 - len(text) % 8)
        write_raw(source, text, bytes(range(22)), pad=False)
        convert_file(source, out, **HALF)
        after, tensors = read(out)
        assert after == header
        assert list(after) == list(header)
        assert int.from_bytes(out.read_bytes()[:8], "little") % 8 == 0
        assert tensors["wk.weight"] == bytes([0, 4, 1, 5, 2, 6, 3, 7])
        assert tensors["wq.weight"] == bytes([8, 12, 9, 13, 10, 14, 11, 15])
        assert (tensors["empty"], tensors["scalar"]) == (b"", bytes(range(16, 20)))

    def test_memory(self, source: Path, out: Path) -> None:
        """A few pieces of a tensor at a time, not a tensor, and not the file."""
        write(source, {"q_proj.weight": ("F32", (1024, 4096)), "other": ("F32", (1024, 4096))})
        tracemalloc.start()
        try:
            convert_file(source, out, **HALF)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 5 * checkpoints._CHUNK < source.stat().st_size

    def test_progress(self, source: Path, out: Path) -> None:
        data = write(source, llama())
        calls: list[tuple[str, int, int]] = []
        convert_file(source, out, **HALF, progress=lambda *call: calls.append(call))
        assert [name for name, _, _ in calls] == list(llama())
        assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})
        assert calls[-1][1:] == (len(data), len(data))


class TestLibrary:
    """Files of the safetensors library, and files for it."""

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
    def test_torch(self, source: Path, out: Path, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        library = pytest.importorskip("safetensors.torch")
        tensors = {
            name: torch.randn(shape).to(getattr(torch, dtype))
            for name, (_, shape) in llama(layers=1).items()
        }
        library.save_file(tensors, source, metadata={"format": "pt", "note": "x"})
        convert_file(source, out, **HALF)
        loaded = library.load_file(out)
        assert set(loaded) == set(tensors)
        for name, tensor in tensors.items():
            moved = any(part in name for part in ("q_", "k_"))
            wanted = rs.convert_projection(tensor, **HALF) if moved else tensor
            assert torch.equal(loaded[name].view(torch.uint8), wanted.view(torch.uint8))
        from safetensors import safe_open

        with safe_open(out, "pt") as file:
            assert file.metadata() == {"format": "pt", "note": "x"}

    def test_unaligned_source_is_sound_for_the_library(self, source: Path, out: Path) -> None:
        library = pytest.importorskip("safetensors.numpy")
        write(source, {"q_proj.weight": ("F32", (8, 2))}, pad=False)
        convert_file(source, out, **HALF)
        assert library.load_file(out)["q_proj.weight"].shape == (8, 2)
