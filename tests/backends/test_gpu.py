"""What only a CUDA device can show. Every other test of a backend runs on it too; see conftest."""

from __future__ import annotations

import pytest

import rotary_spec as rs
from rotary_spec_backends import available, for_array, select
from tests.backends.cuda import CUDA, GPU_BACKENDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA, reason="no CUDA device: backends are tested on the CPU alone"),
]


@pytest.mark.parametrize("name", [name.removesuffix("-cuda") for name in GPU_BACKENDS])
def test_device(name: str) -> None:
    """Host ids follow the array to its device, and the result stays there."""
    status = next(s for s in available() if s.name == name)
    if not status.usable:
        pytest.skip(str(status.reason))
    if "cuda:0" not in status.devices:
        pytest.skip(f"{name} is built without CUDA; it has {', '.join(status.devices)}")
    backend = select(name, device="cuda:0")
    x = backend.framework.asarray([[1.0] * 8] * 4, "float32")
    assert for_array(x).name == name
    assert backend.rotate(x, range(4), rs.RotarySpec(8)).device == x.device
    backend.framework.synchronize()


def test_auto_prefers_an_accelerator() -> None:
    assert select("auto").name != "numpy"
