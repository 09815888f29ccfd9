"""What the commands share: exit codes, a progress bar, wrapped lines."""

from __future__ import annotations

import time
from textwrap import fill

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

CONFORMS, DOES_NOT, COULD_NOT_RUN = 0, 1, 2

_INDENT = " " * 10  # as wide as the mark and the clause id


class SlowProgress:
    """A bar on the error stream, once a check has taken a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.perf_counter()
        self._bar: Progress | None = None

    def __enter__(self) -> SlowProgress:
        return self

    def __call__(self, clause: str, done: int, total: int) -> None:
        if self._bar is None and time.perf_counter() - self._started > 1.0:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self._name, total=total)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=done, description=f"{self._name} {clause}"
            )

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def print_line(out: Console, line: str, style: str = "", indent: str = _INDENT) -> None:
    """One line in a style, continued under its text where the terminal is narrow."""
    out.print(Text(fill(line, out.width, subsequent_indent=indent) or line, style=style))
