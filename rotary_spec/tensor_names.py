"""Which tensors of a checkpoint belong to q and k, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from rotary_spec.errors import CheckpointError, SpecError
from rotary_spec.safetensors_file import Tensor

DEFAULT_NAMES = (
    "q_proj", "k_proj", "wq", "wk", "query", "key", "q_norm", "k_norm", "q_layernorm",
    "k_layernorm", "query_layernorm", "key_layernorm",
)  # fmt: skip
"""Modules whose weight and bias are converted where no patterns are given."""

_LOOKS_LIKE_QK = re.compile(r"w?[qk]", re.IGNORECASE)


def select(
    tensors: Sequence[Tensor],
    patterns: Sequence[str] | None,
    fused_patterns: Sequence[str],
    head_dim: int,
    axis: int,
    label: str,
) -> list[tuple[Tensor, bool]]:
    """The tensors to convert, and whether each is fused; see `convert_file` for the patterns.

    Raises
    ------
    CheckpointError
        If a pattern matches nothing, or the default names would be a guess.
    SpecError
        If a tensor is both fused and not.
    """
    names = [tensor.name for tensor in tensors]
    if patterns is None:
        wanted = {name for name in names if _is_default(name)}
    else:
        wanted = _matching(names, patterns, label)
    fused = _matching(names, fused_patterns, label)
    if wanted & fused:
        raise SpecError(f"{min(wanted & fused)!r} is matched as q or k, and as fused qkv")
    if not wanted | fused:
        raise CheckpointError(
            f"{label}: no tensor to convert. Hint: name them by pattern (this file begins with "
            f"{', '.join(map(repr, names[:3])) or 'nothing'}), or copy a shard that has none."
        )
    if patterns is None and wanted:
        _check_one_kind(wanted | fused, label)
        _check_nothing_forgotten(tensors, wanted | fused, head_dim, axis, label)
    return [(tensor, tensor.name in fused) for tensor in tensors if tensor.name in wanted | fused]


def axis_of(name: str, axis: int) -> int:
    """The axis of the lanes: norm weights, (head_dim,) or (heads, head_dim), have them last.

    >>> from rotary_spec.tensor_names import axis_of
    >>> axis_of("layers.0.self_attn.q_proj.weight", 0)
    0
    >>> axis_of("layers.0.self_attn.q_norm.weight", 0)
    -1
    """
    return -1 if any(part.endswith("norm") for part in name.split(".")[-2:]) else axis


def without_numbers(name: str) -> str:
    """A name with ``*`` for the numbers of layers.

    >>> from rotary_spec.tensor_names import without_numbers
    >>> without_numbers("model.layers.11.self_attn.q_proj.weight")
    'model.layers.*.self_attn.q_proj.weight'
    """
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _matching(names: Sequence[str], patterns: Sequence[str], label: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        # A leading "*." stands for the root as well, where there is nothing before the dot.
        matched = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(f".{n}", pattern)]
        if not matched:
            raise CheckpointError(
                f"{label}: no tensor matches {pattern!r}. Hint: this file begins with "
                f"{', '.join(map(repr, names[:3])) or 'nothing'}."
            )
        found.update(matched)
    return found


def _is_default(name: str) -> bool:
    *_, module, last = ["", *name.split(".")]
    return module in DEFAULT_NAMES and last in ("weight", "bias")


def _attention(name: str) -> str:
    """The module that holds q_proj and its fellows."""
    return ".".join(name.split(".")[:-2])


def _check_one_kind(chosen: Collection[str], label: str) -> None:
    """Two kinds of attention need not share a layout, nor head_dim, nor rotate at all."""
    kinds = sorted({without_numbers(_attention(name)) for name in chosen})
    if len(kinds) > 1:
        raise CheckpointError(
            f"{label} has {len(kinds)} kinds of attention, which may rotate differently: "
            f"{', '.join(map(repr, kinds))}. Hint: name the tensors to convert by pattern."
        )


def _check_nothing_forgotten(
    tensors: Sequence[Tensor], chosen: Collection[str], head_dim: int, axis: int, label: str
) -> None:
    """Rows that belong to moved rows and stay behind would spoil the model without a sign."""
    homes = {_attention(name) for name in chosen}
    for tensor in tensors:
        parts = tensor.name.split(".")
        if tensor.name in chosen or not tensor.shape:
            continue
        home = next((i for i in range(len(parts)) if ".".join(parts[:i]) in homes), None)
        if home is None or not _LOOKS_LIKE_QK.match(parts[home]):
            continue
        along = axis_of(tensor.name, axis)
        size = tensor.shape[along] if -len(tensor.shape) <= along < len(tensor.shape) else 0
        if size and size % head_dim == 0:
            raise CheckpointError(
                f"{label}: {tensor.name!r} of shape {tensor.shape} looks like a part of q or k and "
                "would not be converted. Hint: name every tensor to convert by pattern."
            )
