"""Write a file so that it is there whole or not at all, and nobody else's file is lost."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rotary_spec.errors import CheckpointError


@contextmanager
def new_file(destination: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes ``destination`` when the block ends, and nothing if it raises.

    It grows under another name in the same directory, so that the last step is one directory entry.

    Raises
    ------
    CheckpointError
        If ``destination`` exists by the time the block ends.
    """
    temporary = destination.with_name(f".rotary-spec-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, destination: Path) -> None:
    """Give the file its name. `os.rename` would replace a file that appeared meanwhile."""
    try:
        try:
            os.link(temporary, destination)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: claim the name, then replace the claim
            with open(destination, "xb"):
                pass
            try:
                os.replace(temporary, destination)
            except BaseException:
                destination.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise CheckpointError(
            f"destination {str(destination)!r} exists: it appeared while this ran, and was kept"
        ) from None
    with suppress(OSError):  # not every system can sync a directory; the file's bytes are synced
        directory = os.open(destination.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
