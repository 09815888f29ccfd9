"""Which tensors are converted, and which choices are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rotary_spec as rs
from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    HALF,
    Shapes,
    assert_nothing_written,
    write,
    write_raw,
)


class TestSelection:
    def write(self, source: Path, *names: str, shape: tuple[int, ...] = (16, 6)) -> None:
        write(source, dict.fromkeys(names, ("F32", shape)))

    @pytest.mark.parametrize(
        "name",
        ["q_proj.weight", "a.self_attn.k_proj.bias", "layers.0.attention.wq.weight",
         "encoder.layer.3.attention.self.query.bias", "x.key.weight", "x.k_norm.weight"],
    )  # fmt: skip
    def test_usual_names(self, source: Path, out: Path, name: str) -> None:
        self.write(source, name, "lm_head.weight", "seq_proj.weight", shape=(16,))
        converted = convert_file(source, out, **HALF).converted
        assert [one.name for one in converted] == [name]

    def test_patterns_replace_them(self, source: Path, out: Path) -> None:
        self.write(source, "a.q_proj.weight", "a.Q.weight", "a.K.weight")
        converted = convert_file(source, out, **HALF, tensors=["*.Q.*", "a.[K].weight"]).converted
        assert [one.name for one in converted] == ["a.Q.weight", "a.K.weight"]

    def test_patterns_reach_the_root(self, source: Path, out: Path) -> None:
        self.write(source, "q.weight", "aq.weight", "a.q.weight")
        converted = convert_file(source, out, **HALF, tensors=["*.q.weight"]).converted
        assert [one.name for one in converted] == ["q.weight", "a.q.weight"]

    @pytest.mark.parametrize(
        ("names", "options", "message"),
        [
            (["lm_head.weight"], {}, "no tensor to convert.*begins with 'lm_head.weight'"),
            ([], {}, "no tensor to convert.*begins with nothing"),
            (["q_proj.weight"], {"tensors": []}, "no tensor to convert"),
            (["q_proj.weight"], {"tensors": ["*.q_proj.*", "*.k_proj.*"]}, r"matches '\*.k_proj"),
            (["q_proj.weight"], {"qkv": ["*qkv*"], "qkv_packing": "per-head"}, r"matches '\*qkv"),
            (
                ["text.layers.0.attn.q_proj.weight", "vision.layers.0.attn.q_proj.weight"],
                {},
                r"2 kinds of attention.*'text.layers.\*.attn', 'vision.layers.\*.attn'. Hint",
            ),
            (["h.0.q_proj.weight", "h.0.q_proj.weight_scale"], {}, "q_proj.weight_scale.*Hint"),
            (["h.0.q_norm.weight", "h.0.Wqkv.weight"], {}, "'h.0.Wqkv.weight' of shape"),
            (["h.0.q_proj.weight", "h.0.kv_proj.weight"], {}, "'h.0.kv_proj.weight' of shape"),
        ],
    )
    def test_refused(self, source: Path, out: Path, names: Any, options: Any, message: str) -> None:
        self.write(source, *names)
        with pytest.raises(rs.CheckpointError, match=message):
            convert_file(source, out, **HALF, **options)
        assert_nothing_written(out)

    def test_scales_that_do_not_follow_rows(self, source: Path, out: Path) -> None:
        """One scale for the tensor, or for blocks that hold whole heads, stays true."""
        shapes: Shapes = {
            "h.0.q_proj.weight": ("F8_E4M3", (32, 6)),
            "h.0.q_proj.input_scale": ("F32", ()),
            "h.0.q_proj.weight_scale": ("F32", (1,)),
            "h.0.q_proj.weight_scale_inv": ("F32", (4, 1)),
        }
        write(source, shapes)
        assert len(convert_file(source, out, **HALF).converted) == 1

    @pytest.mark.parametrize(
        ("shape", "options", "error", "message"),
        [
            ((20, 6), {}, rs.ShapeError, "q_proj.weight: expected a multiple of head_dim = 8"),
            ((), {}, rs.ShapeError, "q_proj.weight: axis must name"),
            ((8, 0), {}, rs.ShapeError, "0 bytes .* do not divide into 8 lanes"),
            ((16, 6), {"axis": 2}, rs.ShapeError, "axis must name one of its 2 axes"),
            ((32, 6), {"heads": 2}, rs.ShapeError, "q_proj.weight: expected 2 heads"),
            ((16, 6), {"from_layout": "interleaved"}, rs.SpecError, "nothing to convert: both"),
            ((16, 6), {"to_layout": "neox"}, rs.SpecError, "to_layout must be"),
            ((16, 6), {"head_dim": 6}, rs.ShapeError, "head_dim = 6 rows, got 16"),
            ((16, 6), {"qkv": ["*"]}, rs.SpecError, "qkv and qkv_packing go together"),
            ((16, 6), {"qkv_packing": "per-head"}, rs.SpecError, "go together"),
            (
                (24, 6),
                {"qkv": ["*q_proj*"], "qkv_packing": "per-head"},
                rs.SpecError,
                "'h.q_proj.weight' is matched as q or k, and as fused qkv",
            ),
            (
                (24, 6),
                {"tensors": [], "qkv": ["*q_proj*"], "qkv_packing": "kqv"},
                rs.SpecError,
                "packing must be",
            ),
        ],
    )
    def test_does_not_fit(
        self, source: Path, out: Path, shape: Any, options: Any, error: Any, message: str
    ) -> None:
        self.write(source, "h.q_proj.weight", shape=shape)
        with pytest.raises(error, match=message):
            convert_file(source, out, **{**HALF, **options})
        assert_nothing_written(out)

    def test_lanes_smaller_than_a_byte(self, source: Path, out: Path) -> None:
        header = {"q_proj.weight": {"dtype": "F4", "shape": [6, 8], "data_offsets": [0, 24]}}
        write_raw(source, header, bytes(24))
        with pytest.raises(rs.ShapeError, match=r"24 bytes .*do not divide into 48 lanes"):
            convert_file(source, out, **HALF, axis=1)
        assert_nothing_written(out)
