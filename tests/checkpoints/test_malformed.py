"""Files that are not what they claim to be, found out before a byte is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rotary_spec as rs
from rotary_spec import safetensors_file
from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    HALF,
    assert_nothing_written,
    llama,
    write,
    write_raw,
)

GOOD = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}


def with_entry(**changes: Any) -> dict[str, Any]:
    return {"q_proj.weight": {**GOOD, **changes}}


class TestMalformed:
    @pytest.mark.parametrize(
        ("header", "size", "message"),
        [
            (with_entry(), 7, "is cut short: its tensors take 8 bytes, the file holds 7"),
            (with_entry(), 9, "goes on after its last tensor"),
            ({}, 1, "goes on after its last tensor: its tensors take 0"),
            (with_entry(data_offsets=[1, 9]), 9, "a gap between 'the header', .* begins at 1"),
            (
                {**with_entry(), "b": {**GOOD, "data_offsets": [7, 15]}},
                15,
                "an overlap between 'q_proj.weight', which ends at 8, and 'b'",
            ),
            ({**with_entry(), "b": {**GOOD, "data_offsets": [9, 17]}}, 17, "a gap between"),
            (with_entry(data_offsets=[8, 0]), 8, r"data_offsets must be \[begin, end\]"),
            (with_entry(data_offsets=[0, 8, 8]), 8, "data_offsets must be"),
            (with_entry(data_offsets=[-8, 0]), 0, "data_offsets must be"),
            (with_entry(data_offsets=[0.0, 8.0]), 8, "data_offsets must be"),
            (with_entry(data_offsets=None), 8, "data_offsets must be"),
            (with_entry(shape=[True] * 8), 8, "shape must list sizes"),
            (with_entry(shape=[-8]), 8, "shape must list sizes"),
            (with_entry(shape="8"), 8, "shape must list sizes"),
            (with_entry(shape=[2**63]), 8, "shape must list sizes"),
            (with_entry(shape=[2**62] * 64), 8, "does not take the 8 bytes"),
            (with_entry(shape=[1] * 65), 8, "shape must list sizes"),
            ({"\ud800": GOOD}, 8, "the header is not JSON"),
            (with_entry(dtype=8), 8, "dtype must be a string"),
            (with_entry(dtype="F16"), 8, r"F16 of shape \(8,\) does not take the 8 bytes"),
            (with_entry(dtype="F6_E2M3", shape=[3]), 8, "does not take the 8 bytes"),
            (with_entry(extra=1), 8, "must have dtype, shape and data_offsets"),
            ({"q_proj.weight": 3}, 8, "must have dtype, shape and data_offsets"),
            ({**with_entry(), "__metadata__": {"a": 1}}, 8, "__metadata__ must map strings"),
            ({**with_entry(), "__metadata__": "a"}, 8, "__metadata__ must map strings"),
            (b'{"a": 1, "a": 2}', 0, "not JSON: 'a' occurs twice"),
            (b'{"q_proj.weight": ', 8, "the header is not JSON"),
            (b"[1, 2]  ", 0, "not a JSON object"),
            (b'{"\xff": 1}', 0, "the header is not JSON"),
            (b"[" * 100_000, 0, "the header is not JSON"),
            (b'{"a": ' + b"9" * 5000 + b"}", 0, "the header is not JSON"),
        ],
    )
    def test_header(self, source: Path, out: Path, header: Any, size: int, message: str) -> None:
        write_raw(source, header, bytes(size))
        with pytest.raises(rs.CheckpointError, match=message):
            convert_file(source, out, **HALF)
        assert_nothing_written(out)

    @pytest.mark.parametrize(
        "content",
        [b"", b"abc", bytes(8), (10**18).to_bytes(8, "little") + b"{}", b"\x7fELF" + bytes(100)],
        ids=["empty", "too short", "no header", "absurd length", "something else"],
    )
    def test_not_safetensors(self, source: Path, out: Path, content: bytes) -> None:
        source.write_bytes(content)
        with pytest.raises(rs.CheckpointError, match="is not a safetensors file, or is cut short"):
            convert_file(source, out, **HALF)
        assert_nothing_written(out)

    def test_limit_of_the_format(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(source, llama())
        monkeypatch.setattr(safetensors_file, "MAX_HEADER", 1000)
        with pytest.raises(rs.CheckpointError, match="not a safetensors file"):
            convert_file(source, out, **HALF)

    def test_every_truncation(self, source: Path, out: Path) -> None:
        write(source, llama(layers=1))
        whole = source.read_bytes()
        for length in range(0, len(whole), 37):
            source.write_bytes(whole[:length])
            with pytest.raises(rs.CheckpointError, match="cut short"):
                convert_file(source, out, **HALF)
        assert_nothing_written(out)

    def test_missing(self, source: Path, out: Path) -> None:
        with pytest.raises(rs.CheckpointError, match=r"model.safetensors: No such file"):
            convert_file(source, out, **HALF)
        with pytest.raises(rs.CheckpointError, match="in: Is a directory"):
            convert_file(source.parent, out, **HALF)
        assert_nothing_written(out)
