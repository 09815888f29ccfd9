"""What ``rotary-spec convert`` does; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rotary_spec.checkpoints import Conversion, Converted, convert_file
from rotary_spec.errors import RotarySpecError, SpecError
from rotary_spec.huggingface import from_hf_config
from rotary_spec.tensor_names import without_numbers

CONVERTED, COULD_NOT_RUN = 0, 2
_HEADS = ("num_attention_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")


def run_convert(
    source: str,
    destination: str,
    *,
    config: str | None,
    dimensions: Mapping[str, int | None],
    options: Mapping[str, Any],
) -> int:
    """Convert one file, print what was converted, and return the exit code.

    Parameters
    ----------
    source, destination : str
    config : str or None
        Hugging Face config to take the dimensions from that are not given.
    dimensions : mapping
        head_dim, rotary_dim, rotary_start, heads and kv_heads of `convert_file`; None if not given.
    options : mapping
        The other options of `convert_file`.
    """
    try:
        known: dict[str, Any] = {k: value for k, value in dimensions.items() if value is not None}
        if config is not None:
            known = {**_dimensions(config), **known}
        if "head_dim" not in known:
            raise SpecError("head_dim is missing. Hint: give --head-dim, or --config config.json")
        with _Progress(Path(source).name) as progress:
            conversion = convert_file(source, destination, **known, **options, progress=progress)
    except RotarySpecError as error:
        text = Text(f"not converted: {error}", style="bold red")
        Console(stderr=True, markup=False, highlight=False).print(text, soft_wrap=True)
        return COULD_NOT_RUN
    _show(conversion, destination, f"from {options['from_layout']} to {options['to_layout']}")
    return CONVERTED


def _dimensions(config: str) -> dict[str, int]:
    """What a config says about heads and their lanes."""
    said = from_hf_config(config)
    specs = said if isinstance(said, dict) else {"": said}
    lanes = {name: (s.head_dim, s.rotary_dim, s.rotary_start) for name, s in specs.items()}
    if len(set(lanes.values())) > 1:
        raise SpecError(
            f"the config's layer types {', '.join(lanes)} rotate different lanes: one conversion "
            f"does not serve them all. Hint: give --tensor, and dimensions instead of --config"
        )
    if any(spec.sections and spec.sections.pairing == "within" for spec in specs.values()):
        raise SpecError(
            "the config's model pairs lanes inside a block per axis: no conversion moves those"
        )
    found = dict(zip(("head_dim", "rotary_dim", "rotary_start"), next(iter(lanes.values()))))
    values = json.loads(Path(config).read_text(encoding="utf-8"))
    for name, keys in (("heads", _HEADS), ("kv_heads", _KV_HEADS)):
        value = next((values[key] for key in keys if values.get(key) is not None), None)
        if value is not None:
            found[name] = value
    if values.get("multi_query") and not values.get("new_decoder_architecture"):
        found["kv_heads"] = 1  # Falcon 7B, whose num_kv_heads says otherwise
    return found


class _Progress:
    """A bar on the error stream, once a conversion has taken a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.perf_counter()
        self._bar: Progress | None = None

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, tensor: str, done: int, total: int) -> None:
        if self._bar is None and time.perf_counter() - self._started > 1.0:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
            )
            console = Console(stderr=True)
            self._bar = Progress(
                *columns, console=console, transient=True, disable=not console.is_terminal
            )
            self._bar.start()
            self._bar.add_task(self._name, total=total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _show(conversion: Conversion, destination: str, change: str) -> None:
    """One row for tensors that differ in the number of their layer only."""
    table = Table(box=None, pad_edge=False)
    for column in ("converted", "tensors", "dtype", "shape", "heads"):
        table.add_column(column, overflow="fold")
    rows = Counter(
        (without_numbers(one.name), one.dtype, str(one.shape), _heads(one))
        for one in conversion.converted
    )
    for (name, dtype, shape, heads), count in rows.items():
        table.add_row(Text(name), str(count), Text(dtype), shape, heads)
    out = Console(markup=False, highlight=False)
    out.print(table)
    summary = (
        f"{destination}: {len(conversion.converted)} of {conversion.tensors} tensors {change}, "
        f"the others bit for bit ({conversion.nbytes:,} bytes)"
    )
    out.print(Text(summary), soft_wrap=True)


def _heads(one: Converted) -> str:
    if one.rotating == one.heads:
        return str(one.heads)
    return f"{one.heads}, of v: {one.heads - one.rotating}"
