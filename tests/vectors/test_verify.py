"""What `verify` and the commands say of results that are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from typer.testing import CliRunner

import rotary_spec as rs
from rotary_spec.cli import app
from rotary_spec.layouts import input_lanes
from rotary_spec_conformance import vectors
from rotary_spec_conformance.vectors.golden import FILES
from rotary_spec_conformance.vectors.tensors import Stored, encoded

CASES = vectors.load()
RIGHT = CASES.outputs()
NAME = "position-2p17-half/y_float32"


def run(*arguments: object) -> Any:
    command = ["vectors", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "100"})


def write(folder: Path, tensors: dict[str, Stored]) -> Path:
    path = folder / "results.safetensors"
    path.write_bytes(encoded(tensors))
    return path


def changed(name: str, change: Callable[[Any], Any]) -> dict[str, Stored]:
    """The right results but for one tensor, given as a NumPy array."""
    stored = Stored.of(change(RIGHT[name].to_numpy()))
    assert stored is not None
    return {**RIGHT, name: stored}


def without(name: str) -> dict[str, Stored]:
    return {key: tensor for key, tensor in RIGHT.items() if key != name}


class TestExport:
    def test_files(self, tmp_path: Path) -> None:
        done = run("export", tmp_path / "new" / "folder")
        assert done.exit_code == 0, done.output
        assert f"{len(CASES)} cases, {len(RIGHT):,} tensors to compute" in done.output
        assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(FILES)

    def test_an_empty_folder_will_do(self, tmp_path: Path) -> None:
        assert run("export", tmp_path).exit_code == 0

    def test_files_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").touch()
        done = run("export", tmp_path)
        assert done.exit_code == 2
        assert "is not empty: it holds mine.txt. Hint: name a new one" in done.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").touch()
        done = run("export", tmp_path / "mine.txt" / "new")
        assert done.exit_code == 2
        assert "not exported: folder" in done.stderr

    def test_nothing_is_left_of_a_failed_export(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rotary_spec_conformance.vectors import exporting

        monkeypatch.setattr(exporting, "FILES", (*FILES, "not-there"))
        with pytest.raises(rs.VectorsError, match=r"cannot be written: .*not-there"):
            vectors.export(tmp_path / "new")
        assert list(tmp_path.iterdir()) == []


class TestRight:
    def test_whole(self, folder: Path) -> None:
        write(folder, RIGHT)
        done = run("verify", folder)
        assert done.exit_code == 0, done.output
        assert f"verified: {len(RIGHT):,} of {len(RIGHT):,} tensors are right" in done.output

    @pytest.mark.parametrize(
        ("options", "count"),
        [
            (["--dtype", "float32"], 2 * len(CASES)),
            (["--dtype", "float16", "--dtype", "bfloat16"], 4 * len(CASES)),
            (["--dtype", "float64", "--only", "width-8-*"], 8),
            (["--only", "*/y_float32"], len(CASES)),
            (["--only", "width-8-half", "--only", "width-16-half"], 18),
        ],
    )
    def test_part(self, folder: Path, options: list[str], count: int) -> None:
        """Right as far as asked, and never taken for the whole."""
        write(folder, RIGHT)
        done = run("verify", folder, *options)
        assert done.exit_code == 0, done.output
        said = " ".join(done.output.split())
        assert f"right as far as asked: {count:,} of {count:,} tensors are right; " in said
        assert "cases pass. A partial run: " in said
        found = json.loads(run("verify", folder, *options, "--json").stdout)
        assert (found["ok"], found["whole"], found["tensors"]["asked"]) == (True, False, count)

    def test_a_part_is_no_whole(self, folder: Path) -> None:
        write(folder, {n: t for n, t in RIGHT.items() if t.dtype == "F32"})
        assert run("verify", folder, "--dtype", "float32").exit_code == 0
        done = run("verify", folder)
        assert done.exit_code == 2
        assert "missing" in done.output

    def test_arrays(self) -> None:
        case = CASES["width-8-half"]
        arrays = {"width-8-half/y_float32": case["y_float32"]}
        arrays["width-8-half/y_bfloat16"] = case["y_bfloat16"].astype(ml_dtypes.bfloat16)
        found = vectors.verify(arrays, only=[*arrays])
        assert found.ok
        assert found.asked == 2


PROBLEMS: dict[str, tuple[dict[str, Stored], str, str, str]] = {
    "missing": (without(NAME), NAME, "missing", "is not there"),
    "extra": ({**RIGHT, "mine/y": RIGHT[NAME]}, "mine/y", "extra", "is no tensor of the vectors"),
    "shape": (
        changed(NAME, lambda y: y[:-1]), NAME, "shape", "is of shape (3, 8), expected (4, 8)",
    ),
    "transposed": (
        changed(NAME, lambda y: y.T), NAME, "shape", "is of shape (8, 4), expected (4, 8)",
    ),
    "dtype": (changed(NAME, lambda y: y.astype(float)), NAME, "dtype", "is F64, expected F32"),
}  # fmt: skip


class TestProblems:
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_named(self, folder: Path, name: str) -> None:
        tensors, tensor, kind, message = PROBLEMS[name]
        path = write(folder, tensors)
        found = vectors.verify(path)
        assert found.problems == [vectors.Problem(tensor, kind, message)]
        assert not found.failures
        assert not found.ok
        done = run("verify", folder)
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())
        assert "1 cannot be compared" in " ".join(done.output.split())
        unlike = [verdict for verdict in found.cases().values() if verdict != "pass"]
        assert unlike == ([] if kind == "extra" else ["not compared"])

    def test_truncated(self, folder: Path) -> None:
        """Each tensor that lacks bytes is named, and the others are compared."""
        path = write(folder, RIGHT)
        path.write_bytes(path.read_bytes()[:-500])
        found = vectors.verify(path)
        last = [name for name, t in RIGHT.items() if t.dtype in ("F16", "BF16")]
        assert {p.kind for p in found.problems} == {"truncated"}
        named = [p.tensor for p in found.problems]
        assert named == [n for n in last if n in named]
        assert sum(len(RIGHT[name].data) for name in named[1:]) < 500
        assert sum(len(RIGHT[name].data) for name in named) >= 500
        assert len(found.results) == len(RIGHT) - len(named)
        done = run("verify", folder)
        assert done.exit_code == 2
        assert "truncated" in done.output

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "results cannot be read"),
            (b"", "is not a safetensors file, or is cut short"),
            (b"\xff" * 100, "is not a safetensors file, or is cut short"),
            (encoded(RIGHT)[:1000], "is not a safetensors file, or is cut short"),
            (encoded(RIGHT) + b"more", "goes on after its last tensor"),
        ],
    )
    def test_unreadable(self, folder: Path, content: bytes | None, message: str) -> None:
        if content is not None:
            (folder / "results.safetensors").write_bytes(content)
        done = run("verify", folder)
        assert done.exit_code == 2
        assert message in done.output
        assert list(json.loads(run("verify", folder, "--json").stdout)) == ["not_run"]

    @pytest.mark.parametrize("name", ["manifest.json", "vectors.safetensors"])
    def test_other_vectors(self, folder: Path, name: str) -> None:
        """Results for vectors that were changed, or come from another release, are no results."""
        write(folder, RIGHT)
        path = folder / name
        path.write_bytes(path.read_bytes()[:-1] + b" ")
        done = run("verify", folder)
        assert done.exit_code == 2
        assert "is not the file that this release of rotary-spec exports" in done.output
        path.unlink()
        done = run("verify", folder)
        assert done.exit_code == 2
        assert f"No such file or directory: {name}" in done.output

    def test_foreign_dtype(self, folder: Path) -> None:
        integers = np.zeros(RIGHT[NAME].shape, dtype=np.int32)
        found = vectors.verify({NAME: integers}, only=[NAME])
        assert found.problems == [vectors.Problem(NAME, "dtype", "is int32, which no result is")]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--only", "nothing-*"], "pattern 'nothing-*' matches no case and no tensor"),
            (["--dtype", "int8"], "dtype must be one of float32, float16"),
            (["--only", "*/phases", "--dtype", "float32"], "no tensor that matches */phases is fl"),
        ],
    )
    def test_nothing_asked(self, folder: Path, options: list[str], message: str) -> None:
        write(folder, RIGHT)
        done = run("verify", folder, *options)
        assert done.exit_code == 2
        assert message in done.output


def put(index: tuple[int, ...], value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[index] = value(array[index]) if callable(value) else value
        return array

    return change


class TestWrong:
    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
    def test_named(self, folder: Path, value: float) -> None:
        path = write(folder, changed(NAME, put((2, 5), value)))
        (wrong,) = vectors.verify(path).failures
        assert (wrong.case, wrong.tensor) == tuple(NAME.split("/"))
        assert wrong.where == {"index": [2, 5], "lane": 5, "pair": 1, "position": 131073}
        right = abs(float(CASES["position-2p17-half"]["y_float32"][2, 5]))
        assert wrong.deviation == (right if value == 0 else pytest.approx(value, nan_ok=True))
        done = run("verify", folder)
        assert done.exit_code == 1
        assert NAME in done.output
        assert "131073" in done.output
        assert "tensors are right, 1 wrong" in " ".join(done.output.split())
        found = json.loads(run("verify", folder, "--json").stdout)
        assert found["tensors"]["wrong"] == 1
        verdicts = found["cases"]
        assert [name for name, verdict in verdicts.items() if verdict != "pass"] == [wrong.case]

    def test_phases_to_the_bit(self, folder: Path) -> None:
        name = "position-2p31-half/phases"
        wrong_by_one = changed(name, put((1, 3), lambda p: p + np.uint64(1)))
        (wrong,) = vectors.verify(write(folder, wrong_by_one)).failures
        assert (wrong.deviation, wrong.tolerance, wrong.unit) == (1.0, 0.0, "2^-64 turn")
        assert wrong.where == {"index": [1, 3], "pair": 3, "position": 2147483646}

    def test_copied_lanes(self, folder: Path) -> None:
        """The next float32 is wrong there: nothing is allowed."""
        name = "partial-last-half/y_float32"
        nudged = changed(name, put((0, 2), lambda y: np.nextafter(y, np.float32(9))))
        (wrong,) = vectors.verify(write(folder, nudged)).failures
        assert wrong.tolerance == 0
        assert wrong.where == {"index": [0, 2], "lane": 2}
        assert "copied" in run("verify", folder).output

    def test_axis(self, folder: Path) -> None:
        name = "axes-chunked-two-half/dx_float32"
        (wrong,) = vectors.verify(write(folder, changed(name, put((4, 4), 9.0)))).failures
        assert wrong.where == {"index": [4, 4], "lane": 4, "axis": 1, "pair": 4, "position": 16}

    def test_wrong_before_missing(self, folder: Path) -> None:
        tensors = changed(NAME, put((0, 0), np.nan))
        tensors.pop("width-2-half/cos")
        write(folder, tensors)
        assert run("verify", folder).exit_code == 1

    def test_float32_bound(self) -> None:
        """Just within, and just beyond 6u A (|a| + |b|)."""
        case = CASES["position-small-half"]
        x, y = (case[name].astype(np.float64) for name in ("x_float32", "y_float32"))
        bound = 6 * 2.0**-24 * (abs(x[3, 1]) + abs(x[3, 5]))
        for share, ok in ((0.8, True), (1.2, False)):
            moved = y.copy()
            moved[3, 1] += share * bound
            found = vectors.verify(
                {f"{case.id}/y_float32": moved.astype(np.float32)}, only=[f"{case.id}/y_float32"]
            )
            assert found.ok is ok

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_16_bit_arithmetic(self, dtype: str) -> None:
        """Products in 16 bits are not the bits of one rounding; --narrow says that they may be."""
        ids = [case.id for case in CASES.values() if case.id.startswith("position-")]
        narrow = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
        results = {}
        for name in ids:
            case = CASES[name]
            spec = case.spec
            table = rs.cos_sin(case["positions"], spec, dtype=np.float64)
            cos, sin = (part.astype(narrow) for part in table)
            x = case[f"x_{dtype}"].astype(narrow)
            y = x.copy()
            first, second = map(list, input_lanes(spec))
            y[..., first] = x[..., first] * cos - x[..., second] * sin
            y[..., second] = x[..., second] * cos + x[..., first] * sin
            results[f"{name}/y_{dtype}"] = y
        strict = vectors.verify(results, only=[*results])
        allowed = vectors.verify(results, only=[*results], narrow=True)
        assert strict.failures
        assert allowed.ok
        assert not allowed.whole
