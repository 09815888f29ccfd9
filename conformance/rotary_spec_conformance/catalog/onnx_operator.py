"""The ONNX operator RotaryEmbedding (opset 23), run by onnx's reference evaluator."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec.spec import Layout
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_conformance.target import Rotary, Target

_OPSET = 23


def rotary_embedding(layout: Layout) -> tuple[Target, rs.RotarySpec]:
    """A model of that one node. Its caller supplies cos and sin, so angles are not the operator's.

    The caches hold one row for each position that occurs, and position_ids are rows of them.
    """
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    spec = rs.RotarySpec(head_dim=64, layout=layout)
    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}

    def evaluator(dtype: str) -> Any:
        floats = {"X": 4, "cos_cache": 2, "sin_cache": 2}
        inputs = [
            helper.make_tensor_value_info(name, element[dtype], [None] * rank)
            for name, rank in floats.items()
        ]
        ids = helper.make_tensor_value_info("position_ids", TensorProto.INT64, [None, None])
        output = helper.make_tensor_value_info("Y", element[dtype], [None] * 4)
        node = helper.make_node(
            "RotaryEmbedding",
            [*floats, "position_ids"],
            ["Y"],
            interleaved=int(layout == "interleaved"),
        )
        graph = helper.make_graph([node], "rotary", [*inputs, ids], [output])
        opsets = [helper.make_opsetid("", _OPSET)]
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))

    def build() -> Rotary:
        evaluators = {dtype: evaluator(dtype) for dtype in element}

        def rotate(x: Any, positions: Any) -> Any:
            rows, ids = np.unique(positions, return_inverse=True)
            cos, sin = rs.cos_sin(rows, spec, dtype=np.float64)
            feeds = {
                "X": x,
                "cos_cache": cos.astype(x.dtype),
                "sin_cache": sin.astype(x.dtype),
                "position_ids": np.broadcast_to(
                    ids.reshape(positions.shape), (len(x), positions.shape[-1])
                ),
            }
            return evaluators[str(x.dtype)].run(None, feeds)[0]

        return rotate

    target = Target(
        name=f"onnx:{layout}",
        build=build,
        framework=NumpyFramework(),
        head_dim=spec.head_dim,
        dtypes=tuple(element),
        row_positions=True,
        given_tables=True,
        versions={"onnx": version("onnx")},
        about=f"RotaryEmbedding, opset {_OPSET}, reference evaluator",
    )
    return target, spec
