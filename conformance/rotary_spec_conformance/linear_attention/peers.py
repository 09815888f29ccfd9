"""Linear attentions as others define them: what each does with positions is what is looked at.

Those without a library are written from their published definitions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import rotary_spec as rs
from rotary_spec import BackendUnavailable
from rotary_spec_backends import select
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.linear_attention.catalog import Listed
from rotary_spec_conformance.linear_attention.target import LinearAttentionTarget

SPEC = rs.RotarySpec(head_dim=32)
_EPS = 1e-6  # what fast-transformers adds to its denominators
_CHUNK = 64  # fla's naive form takes whole chunks


def _listed(
    name: str,
    attend: Callable[..., Any],
    about: str,
    packages: tuple[str, ...] = (),
    *,
    spec: rs.RotarySpec = SPEC,
    device: str | None = None,
    **options: Any,
) -> Listed:
    target = LinearAttentionTarget(
        name=f"linear:{name}",
        build=lambda: attend,
        framework=TorchFramework(device),
        head_dim=SPEC.head_dim,
        fresh=False,
        versions={package: version(package) for package in (*packages, "torch")},
        about=about,
    )
    return Listed(target, spec, options)


def _elu_plus_one(x: Any) -> Any:
    import torch

    return torch.nn.functional.elu(x) + 1


def _normalised(phi_q: Any, phi_k: Any, v: Any) -> Any:
    """Katharopoulos et al. 2020, Eq. 9 to 12: cumulative sums, one normaliser for all values."""
    sums = (phi_k[..., None] * v[..., None, :]).cumsum(-3)
    total = (phi_q * phi_k.cumsum(-2)).sum(-1, keepdim=True) + _EPS
    return (phi_q[..., None, :] @ sums)[..., 0, :] / total


def katharopoulos() -> Listed:
    """As published: position is in the embeddings, if anywhere."""

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        return _normalised(_elu_plus_one(q), _elu_plus_one(k), v)

    about = "sum of φ(k) v over sum of φ(k), eps 1e-6"
    return _listed("katharopoulos", attend, about, eps=_EPS)


def performer() -> Listed:
    """Choromanski et al. 2021, with twice as many features as lanes."""
    spec = rs.RotarySpec(head_dim=2 * SPEC.head_dim)
    maps = rs.favor(SPEC.head_dim, spec.head_dim, seed=0)

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        phi_q, phi_k = (maps.query(x.float()).to(x.dtype) for x in (q, k))
        return _normalised(phi_q, phi_k, v)

    about = "FAVOR+ features, eps 1e-6"
    return _listed("performer", attend, about, spec=spec, feature_map=maps, eps=_EPS)


def _lucidrains() -> Callable[[Any, Any], Any]:
    from rotary_embedding_torch import RotaryEmbedding, apply_rotary_emb

    rotary = RotaryEmbedding(dim=SPEC.head_dim)
    return lambda x, positions: apply_rotary_emb(rotary(positions), x)


def rotated_before() -> Listed:
    """As its README has it for softmax attention: rotate q and k, then attend."""
    rotate = _lucidrains()

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        q, k = rotate(q, positions), rotate(k, positions)
        return _normalised(_elu_plus_one(q), _elu_plus_one(k), v)

    about = "RotaryEmbedding on q and k, then causal linear attention"
    packages = ("rotary-embedding-torch",)
    return _listed("rotary-embedding-torch-before", attend, about, packages, eps=_EPS)


def rotated_after() -> Listed:
    """Rotate the features: right for the numerator, and the denominator is rotated with it."""
    rotate = _lucidrains()

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        phi_q, phi_k = _elu_plus_one(q), _elu_plus_one(k)
        return _normalised(rotate(phi_q, positions), rotate(phi_k, positions), v)

    about = "RotaryEmbedding on φ(q) and φ(k), then causal linear attention"
    packages = ("rotary-embedding-torch",)
    return _listed("rotary-embedding-torch-after", attend, about, packages, eps=_EPS)


def fla_naive(rotated: bool = False) -> Listed:
    """flash-linear-attention's PyTorch form; shorter sequences are filled up with zeros."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the GPU and the kernels that are not there
        from fla.ops.linear_attn.naive import naive_chunk_linear_attn

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        phi = _features(q, k, positions, rotated)
        short = -q.shape[-2] % _CHUNK
        filled = (torch.nn.functional.pad(x, (0, 0, 0, short)).transpose(1, 2) for x in (*phi, v))
        out = naive_chunk_linear_attn(*filled, normalize=True)
        return out.transpose(1, 2)[:, :, : q.shape[-2]]

    name = f"fla-naive{'-rotated' if rotated else ''}"
    what = "rotated elu+1 features" if rotated else "elu+1 features"
    return _listed(name, attend, f"naive_chunk_linear_attn on {what}", ("fla-core",))


def fla_triton() -> Listed:
    """Its kernel, which takes one set of features for numerator and denominator.

    Raises
    ------
    BackendUnavailable
        Without a CUDA device, as Triton needs one.
    """
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable("a Triton kernel, which needs a CUDA device")
    from fla.ops.linear_attn import chunk_linear_attn

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        phi = _features(q, k, positions, True)
        arguments = (x.transpose(1, 2).contiguous() for x in (*phi, v))
        return chunk_linear_attn(*arguments, normalize=True)[0].transpose(1, 2)

    about = "chunk_linear_attn on rotated elu+1 features"
    return _listed("fla-triton", attend, about, ("fla-core",), device="cuda")


def _features(q: Any, k: Any, positions: Any, rotated: bool) -> tuple[Any, Any]:
    phi = _elu_plus_one(q), _elu_plus_one(k)
    if not rotated:
        return phi
    return tuple(select("torch", device=str(q.device)).rotate(phi, positions, SPEC))
