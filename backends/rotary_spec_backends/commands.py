"""What ``rotary-spec backends`` does."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rotary_spec_backends.registry import available


def run_backends() -> int:
    """Print one row for each backend, usable or not; the exit code is 0."""
    table = Table(box=None, pad_edge=False)
    for column in ("backend", "version", "devices", "dtypes, or why not"):
        table.add_column(column)
    for status in available():
        table.add_row(
            status.name,
            status.version or "-",
            ", ".join(status.devices) or "-",
            ", ".join(status.dtypes) if status.usable else f"not usable: {status.reason}",
            style=None if status.usable else "yellow",
        )
    Console(markup=False, highlight=False).print(table)
    return 0
