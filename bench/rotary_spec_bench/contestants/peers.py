"""Other people's rotations as their users call them: those that take tables have them already."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec_backends.frameworks import JaxFramework, NumpyFramework, TorchFramework
from rotary_spec_bench.cases import Inputs
from rotary_spec_bench.contestants.base import Contestant, Prepared, Unsuited, compiled, need
from rotary_spec_conformance.mlx_framework import MlxFramework


def peers(device: str) -> list[Contestant]:
    """Everything that runs on such a device, installed or not."""
    on_torch = [
        ("transformers eager", ("torch", "transformers"), _transformers),
        ("transformers compiled", ("torch", "transformers"), _transformers_compiled),
        ("complex multiply (PyTorch)", ("torch",), _complex),
        ("rotary-embedding-torch", ("torch", "rotary_embedding_torch"), _rotary_embedding_torch),
        ("torchtune", ("torch", "torchtune"), _torchtune),
        ("Liger", ("torch", "triton", "liger_kernel"), _liger),
        ("fla", ("torch", "triton", "fla"), _fla),
        ("flash-attn", ("torch", "flash_attn"), _flash_attn),
    ]
    found = [
        Contestant(name, lambda inputs, make=make: make(inputs, TorchFramework(device)),  # type: ignore[misc]
                   modules=modules)
        for name, modules, make in on_torch
    ]  # fmt: skip
    found.append(Contestant("jitted JAX formula", lambda i: _jax(i, device), modules=("jax",)))
    if device == "cpu":
        found += [
            Contestant("NumPy formula", _numpy),
            Contestant("ONNX Runtime", _onnxruntime, modules=("onnx", "onnxruntime")),
            Contestant("MLX", _mlx, modules=("mlx",)),
        ]
    return found


def _tables(inputs: Inputs, *, full: bool) -> tuple[Any, Any]:
    """Float64 cos and sin, one per pair; or one per lane, in the order of the layout."""
    cos, sin = rs.cos_sin(inputs.positions, inputs.case.spec, dtype=np.float64)
    if not full:
        return cos, sin
    if inputs.case.layout == "half":
        return tuple(np.concatenate([t, t], axis=-1) for t in (cos, sin))  # type: ignore[return-value]
    return tuple(np.repeat(t, 2, axis=-1) for t in (cos, sin))  # type: ignore[return-value]


def _differentiated(inputs: Inputs, framework: TorchFramework, rotate: Any) -> Prepared:
    """A PyTorch function of all arrays as the case wants it: itself, or its backward pass alone."""
    given = inputs.of(framework)
    if not inputs.case.backward:
        return Prepared(lambda: rotate(*given), framework)
    leaves = [x.detach().clone().requires_grad_(True) for x in given]
    out = rotate(*leaves)
    grad = framework.xp.autograd.grad
    return Prepared(lambda: grad(out, leaves, list(given), retain_graph=True), framework)


def _apply_of(layout: str) -> Any:
    """transformers' function of that layout: Llama's, or Cohere's."""
    model = "llama" if layout == "half" else "cohere"
    module = import_module(f"transformers.models.{model}.modeling_{model}")
    return module.apply_rotary_pos_emb


def _transformers(
    inputs: Inputs, framework: TorchFramework, with_compiler: bool = False
) -> Prepared:
    need(inputs.case)
    cos, sin = (framework.asarray(t[None], inputs.case.dtype) for t in _tables(inputs, full=True))
    apply = _apply_of(inputs.case.layout)

    def rotate(q: Any, k: Any = None) -> Any:
        # It takes q and k; without keys, k is as small as it can be.
        rotated = apply(q, q[:, :0] if k is None else k, cos, sin)
        return rotated if k is not None else rotated[:1]

    return _differentiated(inputs, framework, compiled(rotate) if with_compiler else rotate)


def _transformers_compiled(inputs: Inputs, framework: TorchFramework) -> Prepared:
    return _transformers(inputs, framework, with_compiler=True)


def _complex(inputs: Inputs, framework: TorchFramework) -> Prepared:
    """Meta's form: pairs as complex numbers, which need float32."""
    need(inputs.case, layouts=("interleaved",))
    torch, (cos, sin) = framework.xp, _tables(inputs, full=False)
    turn = torch.complex(framework.asarray(cos, "float32"), framework.asarray(sin, "float32"))

    def rotate(*arrays: Any) -> Any:
        out = []
        for x in arrays:
            pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
            out.append(torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype))
        return out

    return _differentiated(inputs, framework, rotate)


def _rotary_embedding_torch(inputs: Inputs, framework: TorchFramework) -> Prepared:
    need(inputs.case, layouts=("interleaved",))
    from rotary_embedding_torch import apply_rotary_emb

    turned = inputs.positions[:, None] * rs.frequencies(inputs.case.spec)
    angles = framework.asarray(np.repeat(turned, 2, axis=-1), "float32")
    return _differentiated(
        inputs, framework, lambda *arrays: [apply_rotary_emb(angles, x) for x in arrays]
    )


def _torchtune(inputs: Inputs, framework: TorchFramework) -> Prepared:
    need(inputs.case, layouts=("interleaved",))
    from torchtune.modules import RotaryPositionalEmbeddings

    case = inputs.case
    module = RotaryPositionalEmbeddings(case.head_dim, case.length, base=case.spec.base)
    module = module.to(framework.device)
    return _differentiated(
        inputs,
        framework,
        lambda *arrays: [module(x.transpose(1, 2)).transpose(1, 2) for x in arrays],
    )


def _on_cuda(framework: TorchFramework) -> None:
    if framework.device == "cpu":
        raise Unsuited("its kernels need a CUDA device")


def _liger(inputs: Inputs, framework: TorchFramework) -> Prepared:
    """In place, so its copy of the input turns further with every call; the first is checked."""
    _on_cuda(framework)
    need(inputs.case, layouts=("half",))
    if len(inputs.case.shapes) == 1:
        raise Unsuited("takes q and k together")
    from liger_kernel.ops.rope import rope_backward, rope_forward

    cos, sin = (framework.asarray(t[None], inputs.case.dtype) for t in _tables(inputs, full=True))
    q, k = (x.clone() for x in inputs.of(framework))
    run = rope_backward if inputs.case.backward else rope_forward
    return Prepared(lambda: run(q, k, cos, sin)[:2], framework)


def _fla(inputs: Inputs, framework: TorchFramework) -> Prepared:
    _on_cuda(framework)
    need(inputs.case)
    from fla.modules.rotary import rotary_embedding

    cos, sin = (framework.asarray(t, inputs.case.dtype) for t in _tables(inputs, full=False))
    interleaved = inputs.case.layout == "interleaved"
    return _by_tokens(
        inputs, framework, lambda x: rotary_embedding(x, cos, sin, interleaved=interleaved)
    )


def _flash_attn(inputs: Inputs, framework: TorchFramework) -> Prepared:
    _on_cuda(framework)
    need(inputs.case)
    from flash_attn.layers.rotary import apply_rotary_emb

    cos, sin = (framework.asarray(t, inputs.case.dtype) for t in _tables(inputs, full=False))
    interleaved = inputs.case.layout == "interleaved"
    return _by_tokens(inputs, framework, lambda x: apply_rotary_emb(x, cos, sin, interleaved))


def _by_tokens(inputs: Inputs, framework: TorchFramework, rotate: Any) -> Prepared:
    """A function of (batch, length, heads, head_dim), on views of the case's arrays."""
    return _differentiated(
        inputs,
        framework,
        lambda *arrays: [rotate(x.transpose(1, 2)).transpose(1, 2) for x in arrays],
    )


def _rotate_half(x: Any, layout: str, xp: Any) -> Any:
    if layout == "half":
        first, second = xp.split(x, 2, axis=-1)
        return xp.concatenate([-second, first], axis=-1)
    return xp.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)


def _forward(inputs: Inputs) -> None:
    need(inputs.case)
    if inputs.case.backward:
        raise Unsuited("has no backward pass here")


def _numpy(inputs: Inputs) -> Prepared:
    _forward(inputs)
    framework, case = NumpyFramework(), inputs.case
    cos, sin = (t.astype(np.float32) for t in _tables(inputs, full=True))
    arrays = inputs.of(framework)

    def rotate(x: Any) -> Any:
        wide = x.astype(np.float32, copy=False)
        return (wide * cos + _rotate_half(wide, case.layout, np) * sin).astype(x.dtype, copy=False)

    return Prepared(lambda: [rotate(x) for x in arrays], framework)


def _jax(inputs: Inputs, device: str) -> Prepared:
    _forward(inputs)
    framework, case = JaxFramework(device), inputs.case
    jax, jnp = framework.xp, framework.xp.numpy
    cos, sin = (framework.asarray(t, "float32") for t in _tables(inputs, full=True))
    arrays = inputs.of(framework)

    def formula(arrays: Any, cos: Any, sin: Any) -> Any:
        return [(x * cos + _rotate_half(x, case.layout, jnp) * sin).astype(x.dtype) for x in arrays]

    rotate = jax.jit(formula)
    wait = jax.block_until_ready if device == "cpu" else lambda out: out
    return Prepared(lambda: wait(rotate(arrays, cos, sin)), framework)


def _onnxruntime(inputs: Inputs) -> Prepared:
    _forward(inputs)
    need(inputs.case, dtypes=("float32", "float16"))
    from onnxruntime import InferenceSession

    from rotary_spec_conformance.catalog.onnx_operator import operator_model

    framework, case = NumpyFramework(), inputs.case
    order = ("X", "position_ids", "cos_cache", "sin_cache")
    model = operator_model(case.layout, case.dtype, order, domain="com.microsoft")
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cos, sin = (t.astype(case.dtype) for t in _tables(inputs, full=False))
    ids = np.broadcast_to(inputs.positions, (case.batch, case.length)).astype(np.int64)
    feeds = {"position_ids": ids, "cos_cache": cos, "sin_cache": sin}
    arrays = inputs.of(framework)
    return Prepared(lambda: [session.run(None, {"X": x, **feeds})[0] for x in arrays], framework)


def _mlx(inputs: Inputs) -> Prepared:
    _forward(inputs)
    framework, case = MlxFramework(), inputs.case
    mx, fast = framework.xp, import_module("mlx.core.fast")
    arrays = inputs.of(framework)
    traditional = case.layout == "interleaved"

    def call() -> Any:
        out = [
            fast.rope(x, case.head_dim, traditional=traditional, base=case.spec.base, scale=1.0,
                      offset=0)
            for x in arrays
        ]  # fmt: skip
        mx.eval(out)
        return out

    return Prepared(call, framework)
