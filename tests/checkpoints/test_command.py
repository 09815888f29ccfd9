"""``rotary-spec convert``: what it writes, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    HALF,
    assert_nothing_written,
    expected,
    llama,
    read,
    write,
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    testing = pytest.importorskip("typer.testing")
    from rotary_spec.cli import app

    monkeypatch.setenv("COLUMNS", "120")

    def invoke(*arguments: object) -> Any:
        return testing.CliRunner().invoke(app, ["convert", *map(str, arguments)])

    return invoke


class TestCommand:
    LAYOUTS = ("--from", "half", "--to", "interleaved")

    def test_separate(self, run: Any, source: Path, out: Path) -> None:
        write(source, llama("BF16"))
        result = run(source, out, *self.LAYOUTS, "--head-dim", 8)
        assert result.exit_code == 0, result.output
        expected = out.with_name("expected")
        convert_file(source, expected, **HALF)
        assert out.read_bytes() == expected.read_bytes()
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["model.layers.*.self_attn.k_proj.weight", "2", "BF16", "(16,", "6)", "2"] in rows
        assert "8 of 11 tensors from half to interleaved, the others bit for bit" in result.stdout
        assert result.stderr == ""

    def test_fused(self, run: Any, source: Path, out: Path) -> None:
        write(source, {"h.0.attn.qkv.weight": ("F16", (64, 6)), "h.0.q.weight": ("F16", (16, 6))})
        result = run(
            source, out, *self.LAYOUTS, "--head-dim", 8, "--rotary-dim", 4, "--rotary-start", 2,
            "--heads", 4, "--kv-heads", 2, "--qkv", "*.qkv.*", "--qkv-packing", "per-group",
            "--tensor", "*.q.*",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        (header, before), (_, after) = read(source), read(out)
        lanes: Any = {"rotary_dim": 4, "rotary_start": 2}
        fused: Any = {"packing": "per-group", "heads": 4, "kv_heads": 2}
        for name, options in (("h.0.attn.qkv.weight", fused), ("h.0.q.weight", {})):
            assert after[name] == expected(before[name], header[name], **lanes, **options)

    @pytest.mark.parametrize(
        ("fields", "rows"),
        [
            ({"num_key_value_heads": 2}, 64),
            ({"num_kv_heads": 4, "multi_query": True}, 48),
            ({}, 96),
        ],
    )
    def test_config(self, run: Any, source: Path, out: Path, fields: Any, rows: int) -> None:
        config = source.with_name("config.json")
        sizes = {"hidden_size": 32, "num_attention_heads": 4, "partial_rotary_factor": 0.5}
        config.write_text(json.dumps({**sizes, **fields}))
        write(source, {"h.0.attn.qkv.weight": ("F16", (rows, 6))})
        result = run(
            source, out, *self.LAYOUTS, "--config", config, "--qkv", "*.qkv.*",
            "--qkv-packing", "concatenated",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        (header, before), (_, after) = read(source), read(out)
        name = "h.0.attn.qkv.weight"
        kv_heads = (rows // 8 - 4) // 2
        options = {"packing": "concatenated", "heads": 4, "kv_heads": kv_heads, "rotary_dim": 4}
        assert after[name] == expected(before[name], header[name], **options)
        assert f"of v: {kv_heads}" in result.stdout

    def test_config_of_several_layer_types(self, run: Any, source: Path, out: Path) -> None:
        """Served where all rotate the same lanes, refused where they do not."""
        config = source.with_name("config.json")
        local = {"rope_type": "default", "rope_theta": 1e4}
        for full, served in (({**local, "rope_theta": 1e6}, True),
                             ({**local, "partial_rotary_factor": 0.5}, False)):  # fmt: skip
            layers = {"sliding_attention": local, "full_attention": full}
            config.write_text(json.dumps({"head_dim": 8, "rope_parameters": layers}))
            write(source, llama())
            result = run(source, out, *self.LAYOUTS, "--config", config)
            assert result.exit_code == (0 if served else 2)
            assert ("rotate different lanes" in result.stderr) is not served
            out.unlink(missing_ok=True)

    def test_config_of_lanes_that_lie_in_blocks(self, run: Any, source: Path, out: Path) -> None:
        config = source.with_name("config.json")
        config.write_text(json.dumps({"model_type": "gemma4_vision", "head_dim": 8}))
        write(source, llama())
        result = run(source, out, *self.LAYOUTS, "--config", config)
        assert result.exit_code == 2
        assert "a block per axis" in result.stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "head_dim is missing. Hint: give --head-dim, or --config config.json"),
            (["--head-dim", "7"], "head_dim must be even"),
            (["--head-dim", "10"], "expected a multiple of head_dim = 10 rows"),
            (["--head-dim", "8", "--heads", "3"], "expected 3 heads of q"),
            (["--head-dim", "8", "--tensor", "*.wq.*"], "no tensor matches '*.wq.*'"),
            (["--head-dim", "8", "--to", "half"], "nothing to convert"),
            (["--head-dim", "8", "--to", "neox"], "to_layout must be"),
            (["--config", "missing.json"], "config 'missing.json' cannot be read"),
        ],
    )
    def test_refused(
        self, run: Any, source: Path, out: Path, options: list[str], message: str
    ) -> None:
        """One line on the error stream, exit code 2, nothing written."""
        write(source, llama())
        result = run(source, out, *self.LAYOUTS, *options)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("not converted: ")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
        assert_nothing_written(out)

    @pytest.mark.parametrize("terminal", [True, False])
    def test_progress_after_a_second(
        self, run: Any, source: Path, out: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rotary_spec import convert_command

        ticks = iter(range(1000))
        monkeypatch.setattr(convert_command.time, "perf_counter", lambda: 2.0 * next(ticks))
        monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
        write(source, llama())
        result = run(source, out, *self.LAYOUTS, "--head-dim", 8)
        assert result.exit_code == 0, result.output
        assert ("model.safetensors" in result.stderr) is terminal
        assert terminal or not result.stderr
