"""The survey: a row for everything, and the odd ones visible in theirs."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("typer")

from typer.testing import CliRunner

from rotary_spec import TargetError
from rotary_spec.cli import app
from rotary_spec_conformance.commands.survey import COLUMNS, cells, markdown, summary
from rotary_spec_conformance.survey import Row, survey

TYPES = [
    "llama", "nanochat", "deepseek_v3", "deepseek_v4", "gemma4_text", "gemma4_vision",
    "qwen3_vl_text", "vjepa2", "dinov3_vit",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.target.partition(":")[2]: row for row in survey(model_types=TYPES)}


def test_a_row_for_each(rows: dict[str, Row]) -> None:
    assert list(rows) == [
        "llama", "nanochat", "deepseek_v3", "deepseek_v4:main", "deepseek_v4:compress",
        "gemma4_text:full_attention", "gemma4_text:sliding_attention", "gemma4_vision",
        "qwen3_vl_text", "vjepa2", "dinov3_vit",
    ]  # fmt: skip
    assert {row.model_type for row in rows.values()} == set(TYPES)


def test_the_usual_one(rows: dict[str, Row]) -> None:
    row = rows["llama"]
    assert row.status == "identified"
    assert row.code == "LlamaRotaryEmbedding with apply_rotary_pos_emb"
    assert (row.layout, row.direction, row.rotated) == ("half", "+", "128 of 128")
    assert (row.base, row.schedule, row.attention_factor) == (10_000.0, "default", 1.0)
    assert (row.table_dtype, row.precision, row.conforms) == ("bfloat16", "float32", "yes")
    assert row.trusted_to is not None
    assert row.trusted_to > 2**15


def test_the_odd_ones(rows: dict[str, Row]) -> None:
    assert rows["nanochat"].direction == "-"
    assert rows["deepseek_v3"].layout == "interleaved -> half"
    assert rows["deepseek_v4:main"].rotated == "last 64 of 512"
    assert rows["gemma4_text:full_attention"].rotated == "128 of 512, apart"
    assert rows["gemma4_text:full_attention"].schedule.startswith("proportional(")


def test_those_of_several_axes(rows: dict[str, Row]) -> None:
    """Checked with a position per axis, so that their schedules have names."""
    vision, text = rows["gemma4_vision"], rows["qwen3_vl_text"]
    assert vision.axes == "16+16, restart, within"
    assert (vision.layout, vision.base, vision.schedule) == ("half", 100.0, "default")
    assert text.axes == "24+20+20, interleaved"
    assert rows["llama"].axes == ""


def test_what_is_not_identified_says_why(rows: dict[str, Row]) -> None:
    assert rows["vjepa2"].status == "not rotary"
    assert "not by a rotation" in rows["vjepa2"].reason
    assert rows["dinov3_vit"].status == "not built"
    assert "pixel_values" in rows["dinov3_vit"].reason


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    survey(lambda *args: seen.append(args), ["llama", "jamba"])
    assert seen == [("llama", 0, 2), ("jamba", 1, 2)]


def test_an_unknown_type() -> None:
    with pytest.raises(TargetError, match="'llamma' is not a model type"):
        survey(model_types=["llamma"])


def test_printed(rows: dict[str, Row]) -> None:
    chosen = list(rows.values())
    assert {len(cells(row)) for row in chosen} == {len(COLUMNS)}
    lines = markdown(chosen)
    assert len(lines) == 2 + len(chosen) + 2
    assert lines[2].startswith("| llama | half | + | 128 of 128 |  | 10000 | default |")
    assert summary(chosen) == (
        "11 rotary embeddings of 9 model types: 9 identified, 1 not rotary, 1 not built. "
        "As their configs say: 9 yes, 0 no, 0 whose config says nothing."
    )


class TestCommand:
    def run(self, *args: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["survey", *args])
        return result.exit_code, result.stdout

    def test_json(self) -> None:
        code, out = self.run("transformers", "llama", "jamba", "--json")
        assert code == 0
        whole = json.loads(out)
        assert [row["status"] for row in whole["rows"]] == ["identified", "not built"]
        assert whole["rows"][0]["findings"] == []
        assert "transformers" in whole["versions"]

    def test_markdown(self) -> None:
        code, out = self.run("transformers", "llama", "--markdown")
        assert code == 0
        assert out.startswith("| model type | layout |")
        assert "1 rotary embeddings of 1 model types: 1 identified" in out

    def test_table(self) -> None:
        code, out = self.run("transformers", "llama")
        assert code == 0
        assert "half" in out

    @pytest.mark.parametrize("args", [("megatron",), ("transformers", "llamma")])
    def test_what_cannot_be_run(self, args: tuple[str, ...]) -> None:
        code, out = self.run(*args)
        assert code == 2
        assert "not run: '" in out
        code, out = self.run(*args, "--json")
        assert code == 2
        assert "not_run" in json.loads(out)
