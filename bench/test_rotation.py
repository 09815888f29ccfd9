"""``pytest bench``: each backend's rotation of q and k beside a copy of the same bytes."""

import pytest

import rotary_spec_bench as rb
from rotary_spec_backends import available, select

USABLE = [status.name for status in available() if status.usable]
# Half an ulp of the largest output, around 8, and float32 arithmetic before it.
ALLOWED = {"float32": 8 * 2.0**-22, "bfloat16": 8 * 2.0**-8}


@pytest.fixture(params=USABLE)
def backend(request):
    device = next((s.devices[-1] for s in available() if s.name == request.param), None)
    return select(request.param, device=device)


@pytest.mark.parametrize("case", rb.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("what", ["rotate", "copy"])
def test_rotation(benchmark, backend, case, what):
    framework = backend.framework
    if case.dtype not in framework.supported_dtypes():
        pytest.skip(f"{backend.name} has no {case.dtype} here")
    deviation = rb.error(case, backend)
    assert deviation <= ALLOWED[case.dtype], "a wrong result is not timed"
    q, k, positions = rb.inputs(case, framework)

    def rotate():
        out = backend.rotate((q, k), positions, case.spec)
        if framework.name == "jax":
            framework.xp.block_until_ready(out)
        framework.synchronize()

    def copy():
        rb.copy((q, k), framework)
        framework.synchronize()

    benchmark.group = f"{case.name} [{backend.name}]"
    benchmark.extra_info.update(backend=backend.name, error=deviation)
    benchmark(rotate if what == "rotate" else copy)
