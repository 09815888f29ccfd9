"""The benchmark: what is timed is right, what is not timed says why, and a run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import rotary_spec_bench as rb
from rotary_spec import BackendUnavailable
from rotary_spec.cli import app
from rotary_spec_backends import select
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_bench import commands, growth
from rotary_spec_bench.contestants.copies import BASELINE

TINY = rb.Case(8, "float32", "half", q_heads=2, k_heads=1, head_dim=16)
CASES = (
    TINY,
    replace(TINY, layout="interleaved", dtype="bfloat16"),
    replace(TINY, layout="interleaved", k_heads=0, batch=2),
    replace(TINY, dtype="float16", rotary_dim=8),
    replace(TINY, backward=True),
)
EVERYBODY = rb.contestants("cpu", True)
COMPILED = [c for c in EVERYBODY if c.name.endswith("compiled")]
CONTESTANTS = [c for c in EVERYBODY if c not in COMPILED]  # torch.compile takes seconds a case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_everybody_is_right_or_says_why_not(case: rb.Case) -> None:
    result = rb.run_case(case, CONTESTANTS, rb.HostClock(), rounds=2)
    rows = {row.contestant: row for row in result.rows}
    assert list(rows) == [c.name for c in CONTESTANTS]
    for row in rows.values():
        if row.status == "timed":
            assert row.seconds is not None
            assert row.p10 is not None
            assert row.p90 is not None
            assert 0 < row.p10 <= row.seconds <= row.p90
            assert row.error is not None
            assert row.samples == 2
            assert row.reason == ""
        else:
            assert row.status == "unsuited", row
            assert row.reason
    assert rows[BASELINE].ratio == 1
    assert rows["rotary-spec numpy"].status == "timed"
    assert rb.complete([result])


# PyTorch's own, as its compiler is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")
def test_compiled_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case is compiled once and for its own shapes, ours and transformers'."""
    pytest.importorskip("torch")
    from torch._dynamo.utils import counters

    counters.clear()
    timed = []
    for case in (TINY, replace(TINY, length=16, dtype="bfloat16")):
        result = rb.run_case(case, [*CONTESTANTS[:1], *COMPILED], rb.HostClock(), rounds=3)
        timed += [row.contestant for row in result.rows[1:] if row.status == "timed"]
        assert rb.complete([result])
    if "rotary-spec torch, compiled" in timed:  # else no C++ compiler
        assert counters["stats"]["unique_graphs"] == len(timed)

    module = import_module("rotary_spec_bench.contestants.ours")
    monkeypatch.setattr(module, "which", lambda name: None)
    (row,) = (r for r in rb.run_case(TINY, COMPILED[:1], rb.HostClock(), rounds=2).rows)
    assert row.status == "unsuited"
    assert "C++ compiler" in row.reason


def contestant(name: str, call: Any, kind: str = "peer") -> rb.Contestant:
    return rb.Contestant(name, lambda inputs: rb.Prepared(call(inputs), NumpyFramework()), kind)


def copied(inputs: rb.Inputs) -> Any:
    return lambda: [x.copy() for x in inputs.of(NumpyFramework())]


def right(inputs: rb.Inputs) -> Any:
    arrays, backend = inputs.of(NumpyFramework()), select("numpy")
    return lambda: backend.rotate(arrays, inputs.positions, inputs.case.spec)


def raising(inputs: rb.Inputs) -> Any:
    raise ValueError("no such rope\nand more")


def out_of_memory(inputs: rb.Inputs) -> Any:
    def call() -> Any:
        raise MemoryError("4 TiB")

    return call


def not_a_number(inputs: rb.Inputs) -> Any:
    return lambda: [x * np.nan for x in inputs.of(NumpyFramework())]


def of_another_shape(inputs: rb.Inputs) -> Any:
    return lambda: [x[..., :1] for x in inputs.of(NumpyFramework())]


def failing_later(inputs: rb.Inputs) -> Any:
    rotate, calls = right(inputs), iter(range(4))

    def call() -> Any:
        if next(calls, None) is None:
            raise RuntimeError("out of luck")
        return rotate()

    return call


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        (copied, "wrong", "off by"),
        (not_a_number, "wrong", "off by nan"),
        (of_another_shape, "wrong", "gives arrays of shapes ((1, 2, 8, 1), (1, 1, 8, 1))"),
        (raising, "failed", "ValueError: no such rope"),
        (out_of_memory, "failed", "MemoryError: 4 TiB"),
        (failing_later, "failed", "RuntimeError: out of luck"),
    ],
)
@pytest.mark.parametrize("kind", ["peer", "ours"])
def test_a_row_with_the_reason_and_the_run_goes_on(
    call: Any, status: str, said: str, kind: str
) -> None:
    everybody = [contestant("bad", call, kind), contestant("good", right, "ours")]
    (result,) = rb.run([TINY], everybody, rb.HostClock(), rounds=9, budget=60)
    bad, good = result.rows
    assert bad.status == status
    assert bad.reason.startswith(said) if call is not of_another_shape else said in bad.reason
    assert bad.seconds is None
    assert good.status == "timed"
    assert good.samples == 9
    assert rb.complete([result]) is (kind == "peer")


def test_what_is_not_installed_or_offered_is_no_failure() -> None:
    missing = rb.Contestant("missing", lambda inputs: 1 / 0, modules=("no_such_module",))  # type: ignore[arg-type,return-value]
    result = rb.run_case(TINY, [missing], rb.HostClock(), rounds=1)
    (row,) = result.rows
    assert (row.status, row.reason) == ("unsuited", "no_such_module is not installed")
    assert not rb.complete([result]), "nothing of ours was timed"


def test_a_spent_budget_is_said() -> None:
    result = rb.run(
        [TINY], [contestant("good", right, "ours")], rb.HostClock(), rounds=1, budget=-1
    )
    assert [row.status for row in result[0].rows] == ["left out"]
    assert not rb.complete(result)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
def test_grids(device: str, quick: bool) -> None:
    cases = rb.grid(device, quick)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.layout for case in cases} == {"half", "interleaved"}
    assert {case.dtype for case in cases} >= {"float32", "bfloat16"}
    if not quick:
        assert set(rb.grid(device, True)) <= set(cases)
        assert {c.head_dim for c in cases} == {64, 128}
        assert any(c.backward for c in cases)
        assert any(c.rotary_dim for c in cases)
        assert {min(c.length for c in cases), max(c.length for c in cases)} == {1, 131_072}


class TestDeviceClock:
    """Without a GPU: how a trace is parted into calls."""

    @staticmethod
    def pieces(names_and_times: list[tuple[str, float]], expected: int) -> list[float]:
        def event(name: str, elapsed: float, start: int, device: str = "CUDA") -> Any:
            span = SimpleNamespace(start=start, elapsed_us=lambda: elapsed)
            return SimpleNamespace(name=name, time_range=span, device_type=f"DeviceType.{device}")

        events = [event(name, us, i) for i, (name, us) in enumerate(names_and_times)]
        events.append(event("on the host", 1e9, 2, "CPU"))
        profile = SimpleNamespace(events=lambda: reversed(events))
        return rb.DeviceClock.__new__(rb.DeviceClock)._pieces(profile, expected)

    def test_kernels_between_flushes_are_added_up(self) -> None:
        flush = ("void at::native::elementwise<FillFunctor<double>>", 50.0)
        trace = [("warm", 7.0), flush, ("rope q", 2.0), ("rope k", 3.0), flush, ("copy", 4.0)]
        assert self.pieces(trace, 2) == pytest.approx([5e-6, 4e-6])

    def test_a_trace_that_lacks_a_call_is_no_measurement(self) -> None:
        with pytest.raises(RuntimeError, match="saw 0 of 1 calls"):
            self.pieces([("rope", 2.0)], 1)


class TestGrowth:
    def test_exponents_and_no_table_that_grows_with_the_position(self) -> None:
        small = replace(growth.START, length=64, q_heads=2, head_dim=16)
        backend = select("numpy")
        found = growth.measure(backend, small, repeats=1)
        assert [g.axis for g in found] == ["length", "heads", "batch"]
        assert found[0].sizes == (64, 128, 256)
        near, far = growth.far(backend).values()
        if near is not None and far is not None:
            # A table up to the position would take 2^30 rows; a few pages come and go.
            assert far - near < 2**24

    def test_memory_is_seen(self) -> None:
        """The measure itself: 64 MiB that are touched show up."""
        peak = growth.peak(lambda: np.ones(2**26, np.uint8), select("numpy"))
        if peak is None:
            pytest.skip("this system does not tell a process's high-water mark")
        assert 2**25 < peak < 2**28


class TestCommand:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commands, "grid", lambda device, quick: (TINY,))
        few = [c for c in CONTESTANTS if c.name in (BASELINE, "rotary-spec numpy, out=", "fla")]
        monkeypatch.setattr(commands, "contestants", lambda device, peers: few)

    @staticmethod
    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "100"})

    def test_a_run_its_files_and_a_comparison(self, tmp_path: Path) -> None:
        done = self.run("--device", "cpu", "--quick", "--out", tmp_path)
        assert done.exit_code == 0, done.output
        assert "1 x 2/1 x 8 x 16, float32, half" in done.output
        assert "rotary-spec numpy, out=" in done.output
        assert (tmp_path / "rotation-cpu.png").read_bytes().startswith(b"\x89PNG")
        before = tmp_path / "rotation-cpu.json"
        run = json.loads(before.read_text(encoding="utf-8"))
        assert {"commit", "dirty", "cpu", "threads", "versions"} <= run["provenance"].keys()
        assert {"clock", "rounds", "seed", "bytes", "ratio"} <= run["method"].keys()
        rows = {row["contestant"]: row for row in run["cases"][0]["rows"]}
        assert self.run("compare", before, before).exit_code == 0

        rows["rotary-spec numpy, out="]["ratio"] *= 1.5
        after = tmp_path / "after.json"
        after.write_text(json.dumps(run), encoding="utf-8")
        worse = self.run("compare", before, after)
        assert worse.exit_code == 1
        assert "regressed" in worse.output
        assert self.run("compare", before, after, "--threshold", 0.6).exit_code == 0
        assert self.run("compare", after, before).exit_code == 0

        rows["rotary-spec numpy, out="]["ratio"] = None
        after.write_text(json.dumps(run), encoding="utf-8")
        lost = self.run("compare", before, after, "--json")
        assert lost.exit_code == 1
        assert json.loads(lost.output)[0]["after"] is None

    def test_json(self) -> None:
        done = self.run("--device", "cpu", "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout)["cases"][0]["case"]["bytes"] == 2 * 3 * 8 * 16 * 4

    def test_ours_wrong_exits_with_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            commands, "contestants", lambda device, peers: [contestant("bad", copied, "ours")]
        )
        done = self.run("--device", "cpu", "--quick")
        assert done.exit_code == 1
        assert "bad: wrong: off by" in done.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--device", "tpu"), "device must be cpu or cuda, got 'tpu'"),
            (("--device", "cpu", "--out", "no/such/folder"), "no/such/folder is no folder"),
            (("compare", "nobody.json", "nobody.json"), "nobody.json cannot be read"),
            (("compare", "pyproject.toml", "pyproject.toml"), "is not JSON"),
            (("compare", "a", "a", "--threshold", "nan"), "threshold must not be negative"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_run(self, arguments: Any, said: str) -> None:
        done = self.run(*arguments)
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())

    def test_another_kind_of_json(self, tmp_path: Path) -> None:
        file = tmp_path / "other.json"
        file.write_text('{"cases": [1]}', encoding="utf-8")
        done = self.run("compare", file, file)
        assert done.exit_code == 2
        assert "is no run of this benchmark" in " ".join(done.output.split())

    def test_a_plot_without_matplotlib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
        with pytest.raises(BackendUnavailable, match=r"pip install 'rotary-spec\[plot\]'"):
            commands.require_matplotlib()
        done = self.run("--device", "cpu", "--out", ".")
        assert done.exit_code == 2
        assert "rotary-spec[plot]" in done.output
