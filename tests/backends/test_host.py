"""The CPU engines: many blocks and threads, odd memory, odd numbers, and which engine it is."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_backends.host import compiled, pages, threads
from rotary_spec_backends.host.route import ENVIRONMENT
from tests import fresh, oracle
from tests.backends.test_rotate import assert_rotated

ml_dtypes = pytest.importorskip("ml_dtypes")

LAYOUTS = [("interleaved", None), ("half", None), ("interleaved", "half"), ("half", "interleaved")]
DTYPES = ("float32", "bfloat16", "float16", "float64")


@pytest.fixture(params=["numba", "numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The NumPy backend with one engine or the other, on two threads whatever the machine has."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv(ENVIRONMENT, "1" if request.param == "numba" else "0")
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    monkeypatch.setattr(threads, "WORTHWHILE", 0)
    backend = select("numpy")
    assert backend.route().partition(" ")[0] == request.param  # type: ignore[attr-defined]
    return backend


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    return NumpyFramework().asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "output_layout"), LAYOUTS)
def test_many_blocks(engine: Backend, dtype: str, layout: Any, output_layout: Any) -> None:
    """More rows than a task has, and lanes that no vector divides, beside lanes that stay."""
    spec = rs.RotarySpec(
        48, layout=layout, output_layout=output_layout, rotary_dim=42, rotary_start=4
    )
    x = normal((1, 3, 1500, 48), dtype)
    positions = np.arange(1500) * 87 - 700
    assert_rotated(engine, engine.rotate(x, positions, spec), x, positions, spec)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "output_layout"), LAYOUTS)
@pytest.mark.parametrize("shift", [0, 1, 21])
def test_past_the_caches(
    monkeypatch: pytest.MonkeyPatch, dtype: str, layout: Any, output_layout: Any, shift: int
) -> None:
    """The same bits as with ordinary writes and not one beside them, wherever the target begins."""
    pytest.importorskip("numba")
    monkeypatch.setenv(ENVIRONMENT, "1")
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    monkeypatch.setattr(threads, "WORTHWHILE", 0)
    monkeypatch.setattr(compiled, "STREAM", 0)
    streamed: list[int] = []
    kernels = compiled.jobs

    def jobs(call: Any, *rest: Any) -> Any:
        if len(call.args) > 10:  # no table
            streamed.append(call.args[-1])
        return kernels(call, *rest)

    monkeypatch.setattr(compiled, "jobs", jobs)
    spec = rs.RotarySpec(
        52, layout=layout, output_layout=output_layout, rotary_dim=42, rotary_start=4
    )
    backend, positions = select("numpy"), np.arange(700) * 87
    for shape, axis in (((2, 3, 700, 52), -2), ((2, 700, 3, 52), -3)):
        x = normal(shape, dtype)
        memory = np.full(x.size + 64, -1, x.dtype)
        target = memory[shift : shift + x.size].reshape(shape)
        ordinary = backend.rotate(x, positions, spec, seq_axis=axis)
        assert streamed == [0]
        backend.rotate(x, positions, spec, seq_axis=axis, out=target)
        assert streamed.pop() > 1
        streamed.clear()
        assert target.tobytes() == ordinary.tobytes()
        assert (memory[:shift] == -1).all()
        assert (memory[shift + x.size :] == -1).all()


def test_past_the_caches_not_everywhere() -> None:
    """Not in place nor where rows lie apart, nor where a pass writes part of a row."""

    def rows_at_once(spec: rs.RotarySpec, apart: int = 64, in_place: bool = False) -> int:
        plan = compiled.plan_rows((40, 16), (64, 4), (apart, 4), 4, -2, (40,), spec, 1, in_place)
        return plan.stream

    spec = rs.RotarySpec(16)
    assert rows_at_once(spec) > 1
    assert rows_at_once(spec, in_place=True) == 0
    assert rows_at_once(spec, apart=128) == 0
    sections = rs.Sections((4, 4), pairing="within")
    assert rows_at_once(rs.RotarySpec(16, layout="half", sections=sections)) == 0


ORDERS = {
    "batch, heads, seq": ((2, 3, 40, 16), -2, (40,)),
    "batch, seq, heads": ((2, 40, 3, 16), 1, (40,)),
    "seq, batch, heads": ((40, 2, 3, 16), 0, (40,)),
    "per row": ((2, 3, 40, 16), -2, (2, 1, 40)),
    "per row and head": ((2, 3, 40, 16), -2, (2, 3, 40)),
    "per row, seq second": ((2, 40, 3, 16), 1, (2, 1, 40)),
    "per row alone": ((2, 3, 40, 16), -2, (2, 1, 1)),
    "five axes": ((2, 2, 3, 40, 16), -2, (2, 1, 3, 1)),
    "six axes": ((2, 2, 1, 3, 40, 16), 3, (2, 1, 1, 40, 3)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("view", ["plain", "turned round", "every other", "transposed"])
def test_orders_and_strides(engine: Backend, order: str, view: str) -> None:
    shape, seq_axis, id_shape = ORDERS[order]
    x = normal(shape)
    if view == "turned round":
        x = x[::-1, :, ::-1]
    elif view == "every other":
        x = np.repeat(x, 2, axis=1)[:, ::2]
    elif view == "transposed":
        x = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    positions = np.random.default_rng(1).integers(-(2**31), 2**31, id_shape)
    spec = rs.RotarySpec(16, layout="half", rotary_dim=8)
    y = engine.rotate(x, positions, spec, seq_axis=seq_axis)
    host, moved = (np.moveaxis(v, seq_axis, -2) for v in (x, y))
    assert_rotated(engine, moved, host, positions, spec)
    before = engine.rotate(x, positions, spec, seq_axis=seq_axis)
    assert np.array_equal(engine.rotate(x, positions, spec, seq_axis=seq_axis, out=x), before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_word_is_rounded_as_it_should_be(engine: Backend, dtype: str) -> None:
    """All 2^16 of them at position 0 and with magnitude 1.5: one product, rounded once."""
    words = np.arange(2**16, dtype=np.uint16).view(NumpyFramework().dtype(dtype))
    x = np.stack([words, np.zeros_like(words)], axis=-1)
    spec = rs.RotarySpec(2, attention_factor=1.5)
    with np.errstate(all="ignore"):
        wanted = (words.astype(np.float32) * np.float32(1.5)).astype(words.dtype)
        y = engine.rotate(x, 0, spec)[:, 0]
    number = ~np.isnan(wanted.astype(np.float32))
    assert np.array_equal(y[number].view(np.uint16), wanted[number].view(np.uint16))
    assert np.isnan(y[~number].astype(np.float32)).all()


def test_not_a_number_stays_none(engine: Backend) -> None:
    """Rounding must not carry a NaN's bits over to an infinity, whichever NaN it is."""
    words = np.asarray([0x7FFF, 0xFFFF, 0x7F81, 0x7FC0], np.uint16).view(ml_dtypes.bfloat16)
    y = engine.rotate(np.stack([words] * 2, axis=-1), 3, rs.RotarySpec(2))
    assert np.isnan(y.astype(np.float32)).all()


def test_tables_of_float32(engine: Backend) -> None:
    """cos and sin themselves, from unit vectors: within an ulp of the exact ones up to 2^31."""
    spec = rs.RotarySpec(128, base=5e5)
    rng = np.random.default_rng(0)
    far = rng.integers(-(2**31), 2**31, 500)
    positions = np.concatenate([far, np.arange(2**31 - 600, 2**31)])
    x = np.zeros((positions.size, 128), np.float32)
    x[:, ::2] = 1
    y = engine.rotate(x, positions, spec)
    cos, sin = oracle.cos_sin(positions, spec)
    assert np.abs(y[:, ::2] - cos).max() <= 2.0**-24
    assert np.abs(y[:, 1::2] - sin).max() <= 2.0**-24


class TestThreads:
    def test_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threads, "_cpus", lambda: 8)
        for name in threads.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        assert threads.num_threads() == 8
        for value, wanted in (("3", 3), ("2,1", 2), ("99", 8), ("0", 8), ("many", 8)):
            monkeypatch.setenv("OMP_NUM_THREADS", value)
            assert threads.num_threads() == wanted
        monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
        assert threads.num_threads() == 5

    def test_one_thread_is_the_callers(self) -> None:
        seen: list[int] = []
        threads.run([lambda: seen.append(threading.get_ident())] * 5, 1)
        assert seen == [threading.get_ident()] * 5

    def test_every_job_runs_once(self) -> None:
        seen: list[int] = []
        threads.run([lambda n=n: seen.append(n) for n in range(1000)], 4)  # type: ignore[misc]
        assert sorted(seen) == list(range(1000))

    def test_an_exception_is_raised_again(self) -> None:
        def fail() -> None:
            raise MemoryError("no room")

        for limit in (1, 2):
            with pytest.raises(MemoryError, match="no room"):
                threads.run([fail] * 3, limit)

    def test_torch_says_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        asked: list[int] = []
        monkeypatch.setattr(threads, "run", lambda jobs, limit: asked.append(limit))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            select("torch").rotate(torch.ones(1, 64, 512, 16), np.arange(512), rs.RotarySpec(16))
        finally:
            torch.set_num_threads(before)
        assert asked
        assert set(asked) == {1}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.parametrize("numba", "01")
    def test_a_child_of_a_fork_rotates_too(self, numba: str) -> None:
        """Numba's own pools, or a pool whose threads the child has not, would end or hang it."""
        code = f"""
import json, os
os.environ[{ENVIRONMENT!r}] = {numba!r}
import numpy as np
import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_backends.host import threads
threads.num_threads = lambda: 2
x, spec = np.ones((8, 4096, 64), np.float32), rs.RotarySpec(64)
call = lambda: select("numpy").rotate(x, np.arange(4096), spec)
before = call()
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(call(), before) else 3)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""
        assert fresh.run(code) == 0


class TestPages:
    @pytest.mark.skipif(
        not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
        or not Path("/proc/self/smaps").exists(),
        reason="this system pages in small pages alone, or does not say how it does",
    )
    def test_new_tensors_ask_for_large_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        monkeypatch.setenv(ENVIRONMENT, "0")
        x = torch.ones(2 * pages.LARGE // 256, 64)
        y = select("torch").rotate(x, np.arange(len(x)), rs.RotarySpec(64))
        assert "hg" in flags(y.data_ptr() + pages.LARGE)

    def test_a_refusal_is_not_an_error(self) -> None:
        pages.prefer_large_pages(mmap.PAGESIZE, pages.LARGE)  # where nothing is mapped


def flags(address: int) -> list[str]:
    """What Linux says of the mapping with that address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds, _, rest = line.partition(" ")
        if "-" in bounds:
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            inside = first <= address < last
        elif inside and bounds == "VmFlags:":
            return rest.split()
    raise AssertionError(f"nothing is mapped at {address:#x}")


def test_kernels_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process compiles none of them again, and adds no file."""
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = """
import json
from rotary_spec_backends.kernels import numba_linear_attention, numba_rotation, numba_table
kernels = [
    numba_rotation.rotation("float32", "half", "interleaved"),
    numba_linear_attention.terms("float32", "half", "half"),
    numba_linear_attention.running_sums(),
    numba_table.table(),
]
print(json.dumps([sum(kernel.stats.cache_misses.values()) for kernel in kernels]))
"""
    assert fresh.run(code) == [1, 1, 1, 1]
    files = sorted(tmp_path.rglob("*.nbc"))
    assert len(files) == 4
    assert fresh.run(code) == [0, 0, 0, 0]
    assert sorted(tmp_path.rglob("*.nbc")) == files


class TestRoute:
    def test_numpy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ENVIRONMENT, "0")
        assert select("numpy").route() == "numpy ($ROTARY_SPEC_NUMBA=0)"  # type: ignore[attr-defined]
        monkeypatch.delenv(ENVIRONMENT)
        monkeypatch.setattr(compiled, "find_spec", lambda name: None)
        compiled.unusable.cache_clear()
        try:
            said = select("numpy").route()  # type: ignore[attr-defined]
        finally:
            monkeypatch.undo()
            compiled.unusable.cache_clear()
        assert said == "numpy (numba is not installed; pip install 'rotary-spec[numba]')"

    def test_torch(self) -> None:
        torch = pytest.importorskip("torch")
        backend, spec = select("torch"), rs.RotarySpec(8)
        x = torch.randn(5, 8)
        assert backend.route(x, 3, spec) == "cpu"  # type: ignore[attr-defined]
        parameter = torch.nn.Parameter(x)
        assert backend.route(parameter, 3, spec) == "cpu"  # type: ignore[attr-defined]
        negative = torch.complex(x, x).conj().imag  # a view that says "times -1"
        assert "not in memory as they are" in backend.route(negative, 3, spec)  # type: ignore[attr-defined]
        positions = np.arange(5)
        assert_rotated(backend, backend.rotate(negative, positions, spec), -x, positions, spec)

    def test_torch_gradients_of_gradients(self) -> None:
        torch = pytest.importorskip("torch")
        backend, spec = select("torch"), rs.RotarySpec(8, layout="half", rotary_dim=6)
        x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
        rotate = lambda x: backend.rotate(x, np.arange(3), spec)  # noqa: E731
        assert torch.autograd.gradcheck(rotate, x)
        assert torch.autograd.gradgradcheck(rotate, x)
