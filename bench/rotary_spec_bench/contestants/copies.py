"""A copy of the same bytes: what a rotation cannot beat."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from rotary_spec_backends.frameworks import CupyFramework, NumpyFramework, TorchFramework
from rotary_spec_bench.cases import Inputs
from rotary_spec_bench.contestants.base import Contestant, Prepared

BASELINE = "copy"
"""The contestant that ratios are taken to: into memory that is there already, all threads."""


def copies(device: str) -> list[Contestant]:
    """The baseline, and a copy into new memory, by the fastest framework that is installed."""
    if find_spec("torch") is not None:
        prepare: Any = lambda inputs, new: _torch(inputs, device, new)  # noqa: E731
    elif device == "cpu":
        prepare = _numpy
    else:
        prepare = lambda inputs, new: _cupy(inputs, device, new)  # noqa: E731
    return [
        Contestant(BASELINE, lambda inputs: prepare(inputs, False), "copy"),
        Contestant("copy into new memory", lambda inputs: prepare(inputs, True), "copy"),
    ]


def _torch(inputs: Inputs, device: str, new: bool) -> Prepared:
    framework = TorchFramework(device)
    arrays = inputs.of(framework)
    if new:
        return Prepared(lambda: [x.clone() for x in arrays], framework, bits=True)
    outs = [framework.xp.empty_like(x) for x in arrays]
    return Prepared(lambda: [out.copy_(x) for out, x in zip(outs, arrays)], framework, bits=True)


def _numpy(inputs: Inputs, new: bool) -> Prepared:
    framework = NumpyFramework()
    return _arrays(inputs.of(framework), framework, np, new)


def _cupy(inputs: Inputs, device: str, new: bool) -> Prepared:
    framework = CupyFramework(device)
    return _arrays(inputs.of(framework), framework, framework.xp, new)


def _arrays(arrays: Any, framework: Any, xp: Any, new: bool) -> Prepared:
    if new:
        return Prepared(lambda: [x.copy() for x in arrays], framework, bits=True)
    outs = [xp.empty_like(x) for x in arrays]

    def call() -> Any:
        for out, x in zip(outs, arrays):
            xp.copyto(out, x)
        return outs

    return Prepared(call, framework, bits=True)
