"""RotaryEmbedding as an ONNX operator: opset 23 in onnx's reference evaluator, Microsoft's in ORT.

Their callers supply cos and sin, so angles are not the operators'. The caches hold one row for each
position that occurs, and position_ids are rows of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec.spec import Layout
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_conformance.target import Rotary, Target

_DTYPES = ("float32", "float16")
_OPSET = 23

Run = Callable[[dict[str, Any]], Any]


def standard(layout: Layout) -> tuple[Target, rs.RotarySpec]:
    """The operator of the ONNX standard, in the evaluator that defines it."""

    def prepare(dtype: str) -> Run:
        from onnx.reference import ReferenceEvaluator

        order = ("X", "cos_cache", "sin_cache", "position_ids")
        evaluator = ReferenceEvaluator(operator_model(layout, dtype, order, domain=""))
        return lambda feeds: evaluator.run(None, feeds)[0]

    about = f"RotaryEmbedding, opset {_OPSET}, reference evaluator"
    return _target("onnx", layout, prepare, ("onnx",), about)


def contributed(layout: Layout) -> tuple[Target, rs.RotarySpec]:
    """Microsoft's operator, whose inputs stand in another order, in ONNX Runtime on the CPU."""

    def prepare(dtype: str) -> Run:
        from onnxruntime import InferenceSession, SessionOptions

        order = ("X", "position_ids", "cos_cache", "sin_cache")
        model = operator_model(layout, dtype, order, domain="com.microsoft")
        quiet = SessionOptions()
        quiet.log_severity_level = 4  # refusals are raised, they need not be printed too
        session = InferenceSession(
            model.SerializeToString(), quiet, providers=["CPUExecutionProvider"]
        )
        return lambda feeds: session.run(None, feeds)[0]

    about = "com.microsoft.RotaryEmbedding, CPU execution provider"
    return _target("onnxruntime", layout, prepare, ("onnxruntime", "onnx"), about)


def operator_model(layout: Layout, dtype: str, order: tuple[str, ...], domain: str) -> Any:
    """A model of that one node, for x of shape (batch, heads, seq, head_dim)."""
    from onnx import TensorProto, helper

    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[dtype]
    ranks = {"X": 4, "cos_cache": 2, "sin_cache": 2, "position_ids": 2}
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "position_ids" else element, [None] * ranks[name]
        )
        for name in order
    ]
    output = helper.make_tensor_value_info("Y", element, [None] * 4)
    interleaved = int(layout == "interleaved")
    node = helper.make_node(
        "RotaryEmbedding", list(order), ["Y"], domain=domain, interleaved=interleaved
    )
    graph = helper.make_graph([node], "rotary", inputs, [output])
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _target(
    library: str,
    layout: Layout,
    prepare: Callable[[str], Run],
    packages: tuple[str, ...],
    about: str,
) -> tuple[Target, rs.RotarySpec]:
    spec = rs.RotarySpec(head_dim=64, layout=layout)

    def build() -> Rotary:
        runs = {dtype: prepare(dtype) for dtype in _DTYPES}

        def rotate(x: Any, positions: Any) -> Any:
            rows, ids = np.unique(positions, return_inverse=True)
            # ONNX Runtime wants caches of at least as many rows as the sequence has.
            rows = np.resize(rows, max(len(rows), positions.shape[-1]))
            cos, sin = rs.cos_sin(rows, spec, dtype=np.float64)
            ids = np.broadcast_to(ids.reshape(positions.shape), (len(x), positions.shape[-1]))
            feeds = {"cos_cache": cos.astype(x.dtype), "sin_cache": sin.astype(x.dtype)}
            return runs[str(x.dtype)]({"X": x, "position_ids": ids.astype(np.int64), **feeds})

        return rotate

    target = Target(
        name=f"{library}:{layout}",
        build=build,
        framework=NumpyFramework(),
        head_dim=spec.head_dim,
        dtypes=_DTYPES,
        row_positions=True,
        given_tables=True,
        versions={package: version(package) for package in packages},
        about=about,
    )
    return target, spec
