"""The benchmark's pieces: cases, inputs, the copy they stand beside, the error before timing."""

import numpy as np
import pytest

import rotary_spec_bench as rb
from rotary_spec_backends import available, select

USABLE = [status.name for status in available() if status.usable]
SMALL = [case for case in rb.CASES if case.length == 1]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("name", USABLE)
def test_a_case_runs_right_and_its_copy_is_a_copy(name, case):
    backend = select(name)
    framework = backend.framework
    q, k, positions = rb.inputs(case, framework)
    assert tuple(q.shape) == (1, 32, case.length, 128)
    assert tuple(k.shape) == (1, 8, case.length, 128)
    assert framework.dtype_of(q) == case.dtype
    np.testing.assert_array_equal(framework.to_numpy(positions), np.arange(case.length))
    for original, copied in zip((q, k), rb.copy((q, k), framework), strict=True):
        assert copied is not original
        np.testing.assert_array_equal(framework.to_numpy(copied), framework.to_numpy(original))
    # Position 0 does not rotate: the result is the input, bit for bit.
    assert rb.error(case, backend) == 0
