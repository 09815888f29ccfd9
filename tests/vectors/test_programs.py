"""Programs that read nothing but the exported files: the examples in C and in Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotary_spec.safetensors_file import read_header
from rotary_spec_conformance import vectors
from tests.vectors.conftest import ROOT

C = ROOT / "examples" / "c"


@pytest.fixture(scope="module")
def rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("not run: no C compiler here")
    program = tmp_path_factory.mktemp("c") / "rope"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    done = subprocess.run(
        [compiler, *flags, "-o", program, C / "rope.c", "-lm"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return program


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def assert_verified(folder: Path) -> None:
    found = vectors.verify(folder / "results.safetensors")
    assert found.problems == []
    assert found.failures == []
    assert found.whole


def test_c(rope: Path, folder: Path) -> None:
    done = run(rope, folder)
    assert done.returncode == 0, done.stderr
    assert_verified(folder)
    cases, computed, equal, apart = map(int, re.findall(r"\d+", re.sub("of 64", "", done.stdout)))
    assert cases == len(vectors.load())
    # Where long double has 64 bits, theta is right to a few units of 2^-64: F too, below 2^62.
    assert computed == 0 or (computed > 1000 and equal > 0.9 * computed and apart <= 4)


def test_c_reads_the_files(rope: Path, folder: Path) -> None:
    """It computes from what the files say: another input gives another result, and no other."""
    path = folder / "vectors.safetensors"
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        header = read_header(file, len(data), "vectors")
    (x,) = (t for t in header.tensors if t.name == "width-8-half/x_float32")
    start = len(data) - header.data_bytes
    data[start + x.begin : start + x.end] = bytes(x.nbytes)
    path.write_bytes(data)
    assert run(rope, folder).returncode == 0
    (wrong,) = vectors.verify(folder / "results.safetensors").failures
    assert (wrong.case, wrong.tensor) == ("width-8-half", "y_float32")


@pytest.mark.parametrize("name", ["manifest.json", "vectors.safetensors"])
def test_c_says_what_is_missing(rope: Path, folder: Path, name: str) -> None:
    (folder / name).unlink()
    done = run(rope, folder)
    assert done.returncode == 2
    assert done.stderr == f"rope: cannot open {folder / name}\n"


def test_c_includes_the_standard_library_only() -> None:
    text = "".join((C / name).read_text() for name in ("rope.c", "tensors.h", "json.h"))
    standard = {"float.h", "math.h", "stdarg.h", "stdint.h", "stdio.h", "stdlib.h", "string.h"}
    assert set(re.findall(r"#include <(.*)>", text)) == standard


def test_python(folder: Path) -> None:
    example = ROOT / "examples" / "vectors_python.py"
    done = run(sys.executable, "-W", "error", example, folder)
    assert done.returncode == 0, done.stderr
    assert "rotary_spec" not in example.read_text()
    assert_verified(folder)


def test_the_readme_reads_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines of Python, as they stand."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    case = vectors.load()["model-pixtral"]
    for name in ("x_float32", "positions", "phases"):
        assert np.array_equal(names["tensor"](f"{case.id}/{name}"), case[name])
