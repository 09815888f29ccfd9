"""README and SPEC: what they show is what happens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_bench.report import markdown
from rotary_spec_conformance import CLAUSES, check_linear_attention
from rotary_spec_conformance.registry import LINEAR_ATTENTION_CLAUSES

assert check_linear_attention  # whose import registers its clauses
ALL_CLAUSES = {**CLAUSES, **LINEAR_ATTENTION_CLAUSES}
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_examples_run(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.splitlines()[0][-40:])
def test_console_examples_show_real_output(block):
    command, _, shown = block.partition("\n")
    if "rotary-embedding-torch" in command:
        pytest.importorskip("rotary_embedding_torch")
    arguments = command.split("rotary-spec ", 1)[1].split()
    paths = [str(ROOT / room) for room in (".", "backends", "conformance", "bench")]
    run = subprocess.run(
        [sys.executable, "-m", "rotary_spec", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "COLUMNS": "100",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONPATH": os.pathsep.join(paths),
        },
        check=False,
    )
    pattern = re.escape(shown.strip())
    pattern = re.sub(r"\d+\\\.\d+\\ s\\\)", r"[0-9.]+ s\)", pattern)  # seconds vary
    pattern = pattern.replace(r"\.\.\.", ".*")
    printed = "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())
    assert re.fullmatch(pattern, printed, re.DOTALL), run.stdout + run.stderr


def test_every_clause_is_written_down_and_every_written_clause_is_checked():
    assert set(re.findall(r"\*\*([A-Z]+-\d+)\*\*", SPEC)) == set(ALL_CLAUSES)


@pytest.mark.parametrize("clause", ALL_CLAUSES.values(), ids=lambda clause: clause.id)
def test_levels_agree(clause):
    text = SPEC.split(f"**{clause.id}**", 1)[1]
    text = re.split(r"\*\*[A-Z]+-\d+\*\*|\n#", text)[0]
    assert clause.level in text


@pytest.mark.parametrize(
    ("spec", "pair", "position"),
    [(rs.RotarySpec(head_dim=4), 1, -1), (rs.RotarySpec(128, base=5e5), 37, 2**31 - 1)],
    ids=["near", "far"],
)
def test_the_worked_phases(spec, pair, position):
    """Every number of the worked examples, the last two to the last bit."""
    text = " ".join(SPEC.split())
    turns = rs.turns(spec)[pair]
    phase = turns * position % 2**64
    assert f"F_{pair} = {turns} = `{turns:#018x}`" in text
    assert f"phase is {phase} = `{phase:#018x}`: q = {((phase >> 61) + 1 >> 1) & 3}," in text
    cos, sin = (
        f"`{int(values[pair].view(np.uint32)):#010x}`"
        for values in rs.cos_sin(np.asarray(position), spec)
    )
    assert f"cos = {cos}" in text
    assert f"sin = {sin}" in text


def test_the_speed_table_is_that_of_the_result_file():
    run = json.loads((ROOT / "bench/results/rotation-cpu.json").read_text(encoding="utf-8"))
    assert f"\n{markdown(run)}\n" in README
