"""A safetensors file from one rotary layout to another, without loading it.

The new file has the header of the old one. Tensors that do not belong to q or k are copied, the
others have their rows moved a few heads at a time, whatever their dtype: memory stays at a few
megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rotary_spec.errors import CheckpointError, ShapeError, SpecError
from rotary_spec.new_file import new_file
from rotary_spec.safetensors_file import Header, Tensor, read_header
from rotary_spec.spec import Layout
from rotary_spec.tensor_names import axis_of, select
from rotary_spec.weights import Packing, checked_axis, lane_order, rotating_heads

_CHUNK = 1 << 22  # bytes read at once; one head where a head is larger


@dataclass(frozen=True)
class Converted:
    """One tensor whose rows were moved.

    Attributes
    ----------
    name, dtype, shape
        As in the header.
    heads : int
        How many runs of head_dim rows it has.
    rotating : int
        How many of them are of q or k: all, except in fused tensors.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    heads: int
    rotating: int


@dataclass(frozen=True)
class Conversion:
    """What `convert_file` wrote.

    Attributes
    ----------
    converted : tuple of Converted
    tensors : int
        How many tensors the file holds.
    nbytes : int
        Size of the file.
    """

    converted: tuple[Converted, ...]
    tensors: int
    nbytes: int


def convert_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    from_layout: Layout | None = None,
    to_layout: Layout | None = None,
    permutation: Sequence[int] | None = None,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
    axis: int = 0,
    tensors: Sequence[str] | None = None,
    qkv: Sequence[str] = (),
    qkv_packing: Packing | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Conversion:
    """Write a safetensors file whose query and key weights are in another rotary layout.

    A checkpoint in several files is converted one file at a time, under the same names in another
    directory: each call takes the tensors that its file holds, and ``model.safetensors.index.json``
    stays true. A file that holds none of them is refused; copy it.

    Parameters
    ----------
    source, destination : path
        The destination must not exist. It appears when it is complete.
    from_layout, to_layout, permutation, head_dim, rotary_dim, rotary_start
        As in `convert_projection`.
    axis : int
        0 for tensors (heads * head_dim, hidden), as PyTorch stores them, -1 for
        (hidden, heads * head_dim); both fit biases.
    tensors : sequence of str, or None
        Patterns for tensors of q or of k: ``*`` and ``?`` match any characters, dots too. None
        means weight and bias of `tensor_names.DEFAULT_NAMES`; these are refused where they fit
        more than one kind of attention (a vision tower beside a language model) or leave out what
        looks like a part of q or k (a scale per row). Patterns are taken at their word.
    qkv : sequence of str
        Patterns for tensors that hold q, k and v; beside ``tensors``.
    qkv_packing : {"concatenated", "per-head", "per-group"}
        How they do; see `convert_projection`.
    heads, kv_heads : int or None
        Heads of q and of k, for ``qkv`` and to hold every other tensor against.
    progress : callable or None
        Called as ``progress(tensor, done, total)``, in bytes. What it raises ends the conversion.

    Raises
    ------
    CheckpointError
        If the source is not a sound safetensors file, a pattern matches nothing, the destination
        exists, or a file cannot be read or written.
    ShapeError, SpecError
        If a matched tensor does not fit; see `convert_projection`. Whatever is raised, and on
        an interrupt too, nothing is left behind.

    Examples
    --------
    >>> from rotary_spec.checkpoints import convert_file
    >>> convert_file("model.safetensors", "interleaved.safetensors", from_layout="half",
    ...              to_layout="interleaved", head_dim=128)  # doctest: +SKIP
    """
    order = lane_order(from_layout, to_layout, permutation, head_dim, rotary_dim, rotary_start)
    if order == tuple(range(len(order))):
        raise SpecError("nothing to convert: both layouts have every lane in the same place")
    if bool(qkv) != (qkv_packing is not None):
        raise SpecError(
            f"qkv and qkv_packing go together, got {list(qkv)!r} and {qkv_packing!r}: a pattern "
            "says which tensors hold q, k and v, the packing says in which order"
        )
    source, destination = Path(source), Path(destination)
    try:
        with open(source, "rb") as reader:
            size = os.fstat(reader.fileno()).st_size
            header = read_header(reader, size, str(source))
            chosen = select(header.tensors, tensors, qkv, len(order), axis, str(source))
            plan = {
                tensor.name: _heads(
                    tensor, order, axis, qkv_packing if fused else None, heads, kv_heads
                )
                for tensor, fused in chosen
            }
            _check_destination(source, destination)
            with new_file(destination) as writer:
                text = header.to_bytes()
                writer.write(text)
                _copy(reader, writer, header, plan, order, axis, progress)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or destination}: {error.strerror or error}"
        ) from error
    converted = tuple(
        Converted(t.name, t.dtype, t.shape, len(plan[t.name]), sum(plan[t.name])) for t, _ in chosen
    )
    return Conversion(converted, len(header.tensors), len(text) + header.data_bytes)


def _heads(
    tensor: Tensor,
    order: tuple[int, ...],
    axis: int,
    packing: Packing | None,
    heads: int | None,
    kv_heads: int | None,
) -> tuple[bool, ...]:
    """`rotating_heads` of a tensor, once its bytes are known to fall apart into lanes."""
    axis = checked_axis(tensor.shape, axis_of(tensor.name, axis), tensor.name)
    rotating = rotating_heads(tensor.shape[axis], len(order), packing, heads, kv_heads, tensor.name)
    lanes = prod(tensor.shape[: axis + 1])
    if not tensor.nbytes or tensor.nbytes % lanes:
        raise ShapeError(
            f"{tensor.name}: {tensor.nbytes:,} bytes ({tensor.dtype} of shape {tensor.shape}) do "
            f"not divide into {lanes:,} lanes along axis {axis}"
        )
    return rotating


def _check_destination(source: Path, destination: Path) -> None:
    if os.path.lexists(destination):
        if destination.exists() and destination.samefile(source):
            raise CheckpointError(f"destination {str(destination)!r} is the source itself")
        raise CheckpointError(
            f"destination {str(destination)!r} exists. Hint: remove it, or name another file."
        )
    if not destination.parent.is_dir():
        raise CheckpointError(f"destination {str(destination)!r}: its directory does not exist")


def _copy(
    reader: BinaryIO,
    writer: BinaryIO,
    header: Header,
    plan: Mapping[str, tuple[bool, ...]],
    order: tuple[int, ...],
    axis: int,
    progress: Callable[[str, int, int], object] | None,
) -> None:
    done, total = 0, header.data_bytes
    for tensor in header.tensors:
        chunks: Iterator[bytes | memoryview] = (
            _moved(reader, tensor, plan[tensor.name], order, axis)
            if tensor.name in plan
            else _read(reader, tensor, _CHUNK)
        )
        for chunk in chunks:
            writer.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(tensor.name, done, total)


def _read(reader: BinaryIO, tensor: Tensor, step: int) -> Iterator[bytes]:
    """The bytes of a tensor, ``step`` at a time."""
    for begin in range(0, tensor.nbytes, step):
        wanted = min(step, tensor.nbytes - begin)
        chunk = reader.read(wanted)
        if len(chunk) != wanted:
            raise CheckpointError(f"{tensor.name}: the source became shorter while it was read")
        yield chunk


def _moved(
    reader: BinaryIO,
    tensor: Tensor,
    rotating: tuple[bool, ...],
    order: tuple[int, ...],
    axis: int,
) -> Iterator[memoryview]:
    """The bytes of a tensor with its lanes in their new order.

    In memory a tensor is a row of heads, over and over for every index before the axis: head_dim
    lanes each, of as many bytes as everything behind the axis takes.
    """
    axis = checked_axis(tensor.shape, axis_of(tensor.name, axis), tensor.name)
    lane = tensor.nbytes // prod(tensor.shape[: axis + 1])
    head = len(order) * lane
    repeated = cycle(rotating)
    for chunk in _read(reader, tensor, max(1, _CHUNK // head) * head):
        heads = np.frombuffer(chunk, dtype=np.uint8).reshape(-1, len(order), lane)
        moves = np.asarray(list(islice(repeated, len(heads))))
        moved = np.take(heads, order, axis=1)
        moved[~moves] = heads[~moves]
        yield moved.reshape(-1).data
