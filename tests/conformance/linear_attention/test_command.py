"""Linear attentions by name and by file, and the table of what each computes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from rotary_spec.cli import app
from rotary_spec_conformance import check_linear_attention
from rotary_spec_conformance.linear_attention.catalog import LINEAR_CATALOG, load, names_of

# The catalog ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference", "numpy", "torch", "jax"])
def test_our_own_conform(name):
    if name not in ("reference", "numpy"):
        pytest.importorskip(name)
    listed = load(f"linear:{name}")
    dtypes = ["float32"] if name == "jax" else ["float32", "bfloat16"]
    if name == "reference":
        dtypes = ["float32"]
    report = check_linear_attention(
        listed.target, listed.spec, dtypes=dtypes, quick=True, **listed.options
    )
    assert report.ok, str(report)
    assert not [r for r in report.results if r.status == "note"], str(report)
    assert "LATT-12" in {r.clause for r in report.results if r.status == "pass"}


PEERS = {
    "linear:katharopoulos": ("LATT-7", "φ(q)·φ(k), not rotated", "Σ φ(q)·φ(k) + 1e-06"),
    "linear:performer": ("LATT-7", "φ(q)·φ(k), not rotated", "Σ φ(q)·φ(k)"),
    "linear:rotary-embedding-torch-before": (
        "LATT-7",
        "φ(Rq)·φ(Rk), rotated before the feature map",
        "Σ of the numerator's own, rotated weights",
    ),
    "linear:rotary-embedding-torch-after": (
        "LATT-8",
        "Rφ(q)·Rφ(k)",
        "Σ of the numerator's own, rotated weights",
    ),
    "linear:fla-naive": ("LATT-7", "φ(q)·φ(k), not rotated", "Σ φ(q)·φ(k)"),
    "linear:fla-naive-rotated": (
        "LATT-8",
        "Rφ(q)·Rφ(k)",
        "Σ of the numerator's own, rotated weights",
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_what_others_compute(name):
    pytest.importorskip(LINEAR_CATALOG[name].module)
    clause, numerator, denominator = PEERS[name]
    listed = load(name)
    report = check_linear_attention(
        listed.target, listed.spec, dtypes=["float32"], **listed.options
    )
    assert clause in {result.clause for result in report.failures}
    assert (report.computes.numerator, report.computes.denominator) == (numerator, denominator)


def test_the_family_is_all_of_them():
    assert names_of("linear") == list(LINEAR_CATALOG)
    assert names_of("linear:torch") == ["linear:torch"]
    assert names_of("onnx:half") == []


# The command ----------------------------------------------------------------------------------


def run(*arguments):
    command = ["check", "--kind", "linear-attention", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "120"})


SOURCE = """
import numpy
import rotary_spec as rs

SPEC = rs.RotarySpec(head_dim=8, layout="half")


def right(q, k, v, positions):
    return rs.linear_attention(q, k, v, positions, SPEC, feature_map="softmax")


def rotated(q, k, v, positions):
    return rs.linear_attention(q, k, v, positions, SPEC, denominator="rotated", causal=True)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "attentions.py"
    path.write_text(SOURCE)
    return path


def test_command_conforms(file):
    done = run(f"{file}:right", "--head-dim", 8, "--layout", "half", "--feature-map", "softmax",
               "--bidirectional", "--dtype", "float32", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    (report,) = json.loads(done.output)["reports"]
    assert report["computes"]["sees"] == "every key"


def test_command_names_the_rotated_denominator(file):
    done = run(f"{file}:rotated", "--head-dim", 8, "--layout", "half", "--quick")
    assert done.exit_code == 1
    assert "✗ LATT-8" in done.output
    assert "Σ of the numerator's own, rotated weights" in " ".join(done.output.split())


def test_several_targets_end_in_a_table_of_what_each_computes(file):
    done = run("linear:reference", "linear:nobody", "--dtype", "float32")
    assert done.exit_code == 2
    assert "target            Eq. 19  features" in done.output
    assert "linear:nobody  not run: 'linear:nobody' is not in the catalog" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("linear:numpy", "--shape", "x"), "are not for the catalog"),
        (("linear:reference", "--device", "cuda"), "leave device out"),
        (("{file}:right", "--head-dim", 8, "--order", "bshd"), "order: not for linear attention"),
        (("{file}:right",), "head_dim is missing"),
        (("{file}:right", "--head-dim", 8, "--feature-map", "relu"), "feature_map must be"),
        (("{file}:right", "--head-dim", 8, "--eps", -1), "eps must be"),
        (("{file}:right", "--head-dim", 8, "--max-position", 1), "max_position must lie"),
        (("{file}:SPEC", "--head-dim", 8), "must be callable"),
    ],
)
def test_what_cannot_be_run_is_said_and_exits_with_2(file, arguments, words):
    done = run(*(str(a).replace("{file}", str(file)) for a in arguments))
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--kind", "softmax", "x"), "kind must be rotation or linear-attention, got 'softmax'"),
        (("--eps", "1", "x"), "eps: only with --kind linear-attention"),
        (("linear:torch",), "linear:torch: only with --kind linear-attention"),
        (("--bidirectional", "x"), "causal: only with --kind linear-attention"),
    ],
)
def test_kinds(arguments, words):
    done = CliRunner().invoke(app, ["check", *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
