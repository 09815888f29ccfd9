"""From the text of a target on the command line to the object it names."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rotary_spec import TargetError


def locate(text: str) -> Any:
    """The object that ``package.module:attribute`` or ``path/to/file.py:attribute`` names.

    Raises
    ------
    TargetError
        If the text has another form, the file or module is not there or fails to import, or has no
        such attribute.
    """
    place, colon, attribute = text.rpartition(":")
    if not colon or not place or not attribute:
        raise TargetError(
            f"target {text!r} must be a name of the catalog (rotary-spec targets lists them), "
            "package.module:attribute or path/to/file.py:attribute"
        )
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise TargetError(
                f"{place} has no attribute {attribute!r}; it has {', '.join(public) or 'none'}"
            )
        found = getattr(found, part)
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"target file {str(path)!r} does not exist")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as if the file were run: its neighbours import
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a stranger's module can fail in any way
        raise TargetError(f"{path} failed to import: {type(error).__name__}: {error}") from error
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:  # a stranger's module can fail in any way
        raise TargetError(f"module {name!r} failed to import: {error}") from error
