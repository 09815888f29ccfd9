"""An exported folder, and the Python example that fills it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from rotary_spec_conformance import vectors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vectors as exported; not to be changed."""
    folder = tmp_path_factory.mktemp("vectors") / "exported"
    vectors.export(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "vectors"))


@pytest.fixture(scope="session")
def program() -> ModuleType:
    """examples/vectors_python.py."""
    path = ROOT / "examples" / "vectors_python.py"
    spec = importlib.util.spec_from_file_location("vectors_python", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
