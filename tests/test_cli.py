"""The command: exit codes, one-screen errors, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rotary_spec as rs
from rotary_spec.cli import app

EXAMPLES = Path(__file__).parents[1] / "examples"
HALF = f"{EXAMPLES / 'half_numpy.py'}:rope"
CACHED = f"{EXAMPLES / 'broken_cache.py'}:CachedRope"
META = f"{EXAMPLES / 'meta_llama_torch.py'}:apply_rotary_emb"


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})


def test_conforms():
    done = run("check", HALF, "--head-dim", 64, "--layout", "half", "--quick")
    assert done.exit_code == 0
    assert "conforms:" in done.output


def test_does_not_conform():
    done = run("check", CACHED, "--factory", "--head-dim", 64, "--layout", "half", "--quick")
    assert done.exit_code == 1
    assert "✗ STATE-1" in done.output
    assert "does not conform" in done.output


def test_the_other_layout_is_recognised():
    done = run("check", HALF, "--head-dim", 64, "--quick")
    assert done.exit_code == 1
    assert "this is the half layout" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("examples/nobody.py:rope", "--head-dim", 64), "does not exist"),
        ((f"{EXAMPLES / 'half_numpy.py'}:nobody", "--head-dim", 64), "it has rope"),
        (("nobody.at_all:rope", "--head-dim", 64), "failed to import"),
        (("nonsense", "--head-dim", 64), "must be a name of the catalog"),
        ((HALF,), "head_dim is missing"),
        ((HALF, "--head-dim", 63), "even and positive"),
        ((HALF, "--head-dim", 64, "--rotary-dim", 128), "rotary_dim must not exceed"),
        ((HALF, "--head-dim", 64, "--base", "nan"), "base must be finite"),
        ((HALF, "--head-dim", 64, "--layout", "neox"), "layout must be"),
        ((HALF, "--head-dim", 64, "--schedule", "nobody:factor=2"), "not a known schedule"),
        ((HALF, "--head-dim", 64, "--schedule", "linear:factor=two"), "name=number"),
        ((HALF, "--head-dim", 64, "--shape", "round"), "shape must be"),
        ((HALF, "--head-dim", 64, "--framework", "tinygrad"), "framework must be"),
        ((HALF, "--head-dim", 64, "--device", "cuda"), "device needs --framework"),
        ((HALF, "--head-dim", 64, "--dtype", "float8"), "dtype float8"),
        ((HALF, "--head-dim", 64, "--max-position", 0), "max_position must"),
        ((HALF, "--config", "nobody.json"), "cannot be read"),
        (("onnx:half", "--shape", "x"), "not for targets of the catalog"),
        (("onnx:half", "--layer-type", "full"), "layer_type 'full': not for targets of the cat"),
        ((HALF, "--layer-type", "full", "--head-dim", 64), "there is no --config to have it"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said_and_exits_with_2(arguments, words):
    done = run("check", *arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_a_target_that_always_raises_could_not_be_run(tmp_path):
    file = tmp_path / "raises.py"
    file.write_text("import numpy\ndef rope(x, positions):\n    raise ValueError('no such rope')\n")
    done = run("check", f"{file}:rope", "--head-dim", 16)
    assert done.exit_code == 2
    assert "no such rope" in done.output
    assert "could not be run" in done.output


def test_a_target_that_raises_once_does_not_stop_the_others(tmp_path):
    file = tmp_path / "batch.py"
    file.write_text(
        "import rotary_spec as rs\n"
        "import numpy\n"
        "def rope(x, positions):\n"
        "    if x.shape[0] == 3: raise ValueError('batch of three')\n"
        "    return rs.rotate(x, positions, rs.RotarySpec(16))\n"
    )
    done = run("check", f"{file}:rope", "--head-dim", 16, "--json")
    assert done.exit_code == 1
    (report,) = json.loads(done.output)["reports"]
    statuses = {r["clause"]: r["status"] for r in report["results"]}
    assert statuses["EQV-1"] == "fail"
    assert statuses["ROT-1"] == statuses["PREC-1"] == "pass"


def test_configs(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {"model_type": "llama", "hidden_size": 128, "num_attention_heads": 2, "head_dim": 64}
        )
    )
    done = run("check", HALF, "--config", config, "--quick", "--json")
    assert done.exit_code == 0
    (report,) = json.loads(done.output)["reports"]
    assert rs.RotarySpec.from_dict(report["spec"]) == rs.RotarySpec(64, layout="half")


def test_configs_with_a_spec_per_layer_type(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "gemma3_text", "head_dim": 64}))
    done = run("check", HALF, "--config", config)
    assert done.exit_code == 2
    words = " ".join(done.output.split())
    assert "per layer type (full_attention, sliding_attention); say which: " in words
    assert "or --layer-type full_attention" in words
    layer = ("--layer-type", "sliding_attention")
    done = run("check", HALF, "--config", config, *layer, "--quick", "--json")
    assert done.exit_code == 0
    (report,) = json.loads(done.output)["reports"]
    assert rs.RotarySpec.from_dict(report["spec"]) == rs.RotarySpec(64, layout="half")


def test_several_targets_end_in_a_table():
    done = run("check", "rotary-spec:numpy", "nonsense", "--quick")
    assert done.exit_code == 2
    assert "not run: " in done.output
    assert "2,147,483,647" in done.output


def test_identify_and_compare():
    done = run("identify", HALF, "--head-dim", 64, "--json")
    assert done.exit_code == 0
    found = rs.RotarySpec.from_dict(json.loads(done.output)["spec"])
    assert found == rs.RotarySpec(64, layout="half")
    assert run("identify", CACHED, "--factory", "--head-dim", 64).exit_code == 1
    assert run("identify", HALF).exit_code == 2

    done = run("compare", META, "onnx:half", "--head-dim", 64)
    assert done.exit_code == 0
    assert "interleaved -> half" in " ".join(done.output.split())
    assert run("compare", "onnx:half", "nobody").exit_code == 2


@pytest.mark.parametrize("command", ["targets", "backends"])
def test_lists(command):
    done = run(command)
    assert done.exit_code == 0
    assert "numpy" in done.output


def test_help_names_every_command():
    done = run("--help")
    names = "check identify compare survey convert encodings plot targets backends"
    for command in names.split():
        assert command in done.output


def test_missing_terminal_libraries_are_named():
    code = "import sys; sys.modules['typer'] = None\nfrom rotary_spec.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'rotary-spec[cli]'" in done.stderr
