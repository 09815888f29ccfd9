"""Read a file of results as far as it goes; what is wrong with it is named, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

from rotary_spec import CheckpointError, VectorsError
from rotary_spec.safetensors_file import check_offsets, read_entries
from rotary_spec_conformance.vectors.findings import Problem
from rotary_spec_conformance.vectors.tensors import ITEM, Stored


def read_results(path: Path) -> tuple[dict[str, Stored], list[Problem]]:
    """The tensors of a safetensors file that are whole, and a problem for each other one.

    Raises
    ------
    VectorsError
        If the file cannot be read at all, or its header contradicts itself.
    """
    label = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = read_entries(file, size, label)
            data = file.read()
        if header.data_bytes <= len(data):
            check_offsets(header, len(data), label)
    except OSError as error:
        raise VectorsError(f"results cannot be read: {error.strerror}: {label}") from error
    except CheckpointError as error:
        raise VectorsError(f"results cannot be read: {error}") from error
    given, problems = {}, []
    for t in header.tensors:
        if t.end > len(data):
            missing = t.end - max(t.begin, len(data))
            problems.append(
                Problem(t.name, "truncated", f"lacks {missing:,} of its {t.nbytes:,} bytes")
            )
        elif t.dtype not in ITEM:
            problems.append(Problem(t.name, "dtype", f"is {t.dtype}, which no result is"))
        else:
            given[t.name] = Stored(t.dtype, t.shape, data[t.begin : t.end])
    return given, problems
