"""The project's own backends, held to the suite: exact in every dtype, or they are no reference."""

from __future__ import annotations

import pytest

import rotary_spec as rs
from rotary_spec_backends import available
from rotary_spec_conformance import check
from tests.backends.cuda_on_host import cuda_on_host
from tests.backends.interpreter import interpreted
from tests.conformance.own_targets import backend_target

STATUS = {status.name: status for status in available()}
SPECS = {
    "interleaved": rs.RotarySpec(head_dim=16),
    "half": rs.RotarySpec(head_dim=16, layout="half"),
    "everything": rs.RotarySpec(
        head_dim=16,
        base=500_000.0,
        output_layout="half",
        rotary_dim=8,
        rotary_start=4,
        schedule=rs.Llama3(8.0, 1.0, 4.0, 8192),
        attention_factor=1.2,
        inverse=True,
    ),
    "axes": rs.RotarySpec(head_dim=16, layout="half", sections=(2, 3, 3)),
}


def assert_exact(report):
    assert report.ok, str(report)
    assert not [r for r in report.results if r.status == "note"], str(report)
    assert {(grade.precision, grade.trusted_to) for grade in report.grades} == {
        ("exact", 2**31 - 1)
    }


@pytest.mark.parametrize("layout", SPECS)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_conforms_exactly_in_every_dtype(name, layout):
    report = check(backend_target(name, SPECS[layout]), SPECS[layout])
    assert_exact(report)
    assert {grade.dtype for grade in report.grades} == set(STATUS[name].dtypes)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_jax_conforms_exactly_in_every_dtype(layout):
    """Compiled anew for every shape, which is most of the time: one axis less than the others."""
    pytest.importorskip("jax")
    report = check(backend_target("jax", SPECS[layout]), SPECS[layout])
    assert_exact(report)
    assert {grade.dtype for grade in report.grades} == {"float32", "float16", "bfloat16"}


def test_triton_kernel_conforms_in_the_interpreter():
    """The whole suite, on the CPU: slow for its size, so one spec, which leaves nothing out."""
    spec = SPECS["everything"]
    with interpreted():
        report = check(backend_target("torch", spec, "cpu"), spec, quick=True)
    assert_exact(report)


def test_cuda_source_conforms_as_cpp():
    spec = SPECS["everything"]
    with cuda_on_host() as backend:
        report = check(backend_target("numpy", spec, backend=backend), spec)
    assert_exact(report)


def test_jax_conforms_exactly_on_several_axes():
    """In one dtype, for the same reason."""
    pytest.importorskip("jax")
    assert_exact(check(backend_target("jax", SPECS["axes"]), SPECS["axes"], dtypes=["float32"]))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", SPECS)
@pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
def test_conforms_exactly_on_a_gpu(name, layout):
    devices = [device for device in STATUS[name].devices if device.startswith("cuda")]
    if not devices:
        pytest.skip(f"not run: no CUDA device for {name}")
    report = check(backend_target(name, SPECS[layout], devices[0]), SPECS[layout])
    assert_exact(report)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_head_dims_of_models_conform(name):
    for head_dim in (2, 64, 128, 256):
        spec = rs.RotarySpec(head_dim=head_dim, layout="half")
        assert_exact(check(backend_target(name, spec), spec, quick=True))
