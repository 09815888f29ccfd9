"""The project's own backends, held to the suite: exact in every dtype, or they are no reference."""

from __future__ import annotations

import pytest

import rotary_spec as rs
from rotary_spec_backends import available, select, status
from rotary_spec_conformance import Target, check
from rotary_spec_conformance.inference import framework_named

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
}


def backend_target(name: str, spec: rs.RotarySpec, device: str | None = None) -> Target:
    backend = select(name, device=device)

    def rotate(x, positions):
        ids = positions if positions.ndim == 1 else positions[:, None]
        return backend.rotate(x, ids, spec)

    return Target(
        name,
        build=lambda: rotate,
        framework=framework_named(name, device),
        head_dim=spec.head_dim,
        dtypes=status(name).dtypes,
        row_positions=True,
        fresh=False,
        pair=lambda: lambda q, k, positions: backend.rotate((q, k), positions, spec),
    )


def assert_exact(report):
    assert report.ok, str(report)
    assert not [r for r in report.results if r.status == "note"], str(report)
    assert {(grade.precision, grade.trusted_to) for grade in report.grades} == {
        ("exact", 2**31 - 1)
    }


@pytest.mark.parametrize("layout", ["interleaved", "half", "everything"])
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


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["interleaved", "half", "everything"])
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
