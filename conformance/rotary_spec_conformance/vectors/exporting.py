"""Write the golden vectors where a program in any language can read them."""

from __future__ import annotations

from pathlib import Path

from rotary_spec import RotarySpecError, VectorsError
from rotary_spec.new_file import new_file
from rotary_spec_conformance.vectors.golden import DATA, FILES


def export(folder: str | Path) -> list[Path]:
    """Copy the vectors, their manifest, its JSON Schema and a README into a new folder.

    Parameters
    ----------
    folder : str or path
        Made if it is not there; must be empty if it is.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    VectorsError
        If the folder holds files, or cannot be written; nothing of ours is left then.
    """
    folder = Path(folder)
    written: list[Path] = []
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if inside := sorted(path.name for path in folder.iterdir()):
            shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
            raise VectorsError(
                f"folder {str(folder)!r} is not empty: it holds {shown}. Hint: name a new one"
            )
        for name in FILES:
            with new_file(folder / name) as file:
                file.write((DATA / name).read_bytes())
            written.append(folder / name)
    except (OSError, RotarySpecError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        if made and folder.is_dir():
            folder.rmdir()
        if isinstance(error, VectorsError):
            raise
        raise VectorsError(f"folder {str(folder)!r} cannot be written: {error}") from error
    return written


def check_folder(folder: str | Path) -> None:
    """Raise `VectorsError` where a folder holds vectors that are not this release's.

    Results are held against the installed vectors; those in the folder must be the same.
    """
    for name in FILES[:2]:
        path = Path(folder) / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise VectorsError(
                f"folder {str(folder)!r} is no export of the vectors: {error.strerror}: {name}. "
                "Hint: rotary-spec vectors export"
            ) from error
        if content != (DATA / name).read_bytes():
            raise VectorsError(
                f"{str(path)!r} is not the file that this release of rotary-spec exports: it was "
                "changed, or is of another release. Hint: export again, and compute again"
            )
