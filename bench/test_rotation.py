"""``pytest bench``: the quick grid, each contestant beside a copy of the same bytes."""

import pytest

import rotary_spec_bench as rb
from rotary_spec_bench.accuracy import error_of

DEVICE = "cpu"


@pytest.fixture(scope="module", params=rb.grid(DEVICE, quick=True), ids=lambda case: case.name)
def inputs(request):
    return rb.Inputs(request.param)


@pytest.mark.parametrize("contestant", rb.contestants(DEVICE, True), ids=lambda c: c.name)
def test_rotation(benchmark, inputs, contestant):
    if (missing := contestant.missing()) is not None:
        pytest.skip(missing)
    try:
        prepared = contestant.prepare(inputs)
    except rb.Unsuited as why:
        pytest.skip(str(why))
    deviation = error_of(inputs, prepared, prepared.call(), contestant.kind)
    benchmark.group = inputs.case.name
    benchmark.extra_info.update(
        contestant=contestant.name, error=deviation, bytes=inputs.case.nbytes
    )
    benchmark(prepared.call)
