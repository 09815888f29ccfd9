"""What importing costs, which way imports run, and that every example in a docstring is true."""

from __future__ import annotations

import ast
import doctest
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import rotary_spec
import rotary_spec_backends
from tests import fresh

HEAVY = [
    "cupy", "dask", "jax", "matplotlib", "mlx", "numba", "onnx", "rich", "torch", "transformers",
    "typer",
]  # fmt: skip
LOADED = "import json, sys; print(json.dumps([m for m in {modules} if m in sys.modules]))"


def loaded_by(statement: str, *paths: Path) -> list[str]:
    """Which of the heavy modules are loaded after ``statement`` in a fresh interpreter."""
    return fresh.run(f"{statement}\n{LOADED.format(modules=HEAVY)}", *paths)


class TestImports:
    @pytest.mark.parametrize(
        "statement",
        [
            "import rotary_spec",
            "import rotary_spec_backends",
            "import rotary_spec as rs; rs.backends.FRAMEWORKS",
            "from rotary_spec import from_hf_config",
            "from rotary_spec import decay, encodings, plots",
            "import numpy; from rotary_spec_backends import for_array; for_array(numpy.ones(1))",
            "from rotary_spec_backends import select; select('numpy')",
        ],
    )
    def test_nothing_heavy(self, statement: str) -> None:
        assert loaded_by(statement) == []

    def test_the_test_can_fail(self, tmp_path: Path) -> None:
        """A module that is imported is seen: here an empty stand-in for torch."""
        (tmp_path / "torch.py").touch()
        assert loaded_by("import torch", tmp_path) == ["torch"]

    def test_standard_library(self) -> None:
        """Little is loaded beyond what NumPy and array_api_compat load: no json, no pathlib.

        So the cost is NumPy's and a few milliseconds, and no clock is needed to hold it there.
        """
        added = fresh.run(
            "import array_api_compat, numpy, sys; before = set(sys.modules)\n"
            "import rotary_spec; added = set(sys.modules) - before\n"
            "import json; print(json.dumps(sorted(added)))"
        )
        cheap = {"_decimal", "copy", "dataclasses", "decimal", "numbers", "numpy", "rotary_spec"}
        assert {name.partition(".")[0] for name in added} <= cheap
        assert "rotary_spec.huggingface" not in added

    def test_rooms_are_lazy_attributes(self) -> None:
        found = fresh.run(
            "import json, sys, rotary_spec as rs\n"
            "before = 'rotary_spec_backends' in sys.modules\n"
            "print(json.dumps([before, rs.backends.__name__, 'backends' in dir(rs)]))"
        )
        assert found == [False, "rotary_spec_backends", True]

    def test_star_import(self) -> None:
        """Every public name exists, and no room is opened for it."""
        found = fresh.run(
            "import json, sys, rotary_spec\n"
            "names = {}; exec('from rotary_spec import *', names)\n"
            "missing = [n for n in rotary_spec.__all__ if n not in names]\n"
            "rooms = [m for m in sys.modules if m.startswith('rotary_spec_')]\n"
            "print(json.dumps([missing, rooms]))"
        )
        assert found == [[], []]

    def test_unknown_attribute(self) -> None:
        with pytest.raises(AttributeError, match="'rotary_spec' has no attribute 'rope'"):
            rotary_spec.rope


# Lowest first. A room imports itself and the rooms below it.
ROOMS = {
    "rotary_spec": fresh.ROOT / "rotary_spec",
    "rotary_spec_backends": fresh.ROOT / "backends" / "rotary_spec_backends",
    "rotary_spec_conformance": fresh.ROOT / "conformance" / "rotary_spec_conformance",
    "rotary_spec_bench": fresh.ROOT / "bench" / "rotary_spec_bench",
}
# The front door names the other rooms, and opens them when asked.
DOORS = {
    f"rotary_spec/{name}.py" for name in ("__init__", "__main__", "cli", "cli_bench", "cli_vectors")
}
SOURCES = [
    pytest.param(room, path, id=path.relative_to(folder.parent).as_posix())
    for room, folder in ROOMS.items()
    for path in sorted(folder.rglob("*.py"))
]


def imports(node: ast.AST, *, deep: bool) -> Iterator[str]:
    """Names of the modules imported below ``node``: while importing it, or anywhere if ``deep``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield child.module or ""
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif deep or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(child, deep=deep)


@pytest.mark.parametrize(("room", "path"), SOURCES)
def test_imports_run_one_way(room: str, path: Path) -> None:
    """bench -> conformance -> backends -> rotary_spec; inside functions too."""
    rooms = list(ROOMS)
    below = rooms[: rooms.index(room) + 1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_door = path.relative_to(fresh.ROOT).as_posix() in DOORS
    used = {name.partition(".")[0] for name in imports(tree, deep=not at_door)}
    assert used & set(rooms) <= set(below)
    command = path.stem.startswith(("cli", "__main__")) or path.stem.endswith("_command")
    if room == "rotary_spec" and not command:
        used -= {"matplotlib"} if path.name == "plots.py" else set()
        assert used <= {*sys.stdlib_module_names, "numpy", "array_api_compat", "rotary_spec"}


def test_the_import_walk_can_fail() -> None:
    tree = ast.parse(
        "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c\n"
        "try:\n    import d\nexcept ImportError:\n    pass\n"
        "class E:\n    from f import g\n    def h(self):\n        import i\n"
    )
    assert list(imports(tree, deep=False)) == ["a.b", "typing", "d", "f"]
    assert list(imports(tree, deep=True)) == ["a.b", "typing", "d", "f", "i"]


MODULES = sorted(
    info.name
    for package in (rotary_spec, rotary_spec_backends)
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not info.name.endswith((".cli", ".__main__", ".commands", "_command"))
)


@pytest.mark.parametrize("name", ["rotary_spec", "rotary_spec_backends", *MODULES])
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.FAIL_FAST)
    assert result.failed == 0


def test_public_functions_have_examples() -> None:
    """Whoever calls help() on one of them sees it run."""
    functions = [getattr(rotary_spec, name) for name in rotary_spec.__all__]
    functions += [rotary_spec_backends.select, rotary_spec_backends.for_array]
    lacking = [f.__name__ for f in functions if not isinstance(f, type) and ">>>" not in f.__doc__]
    assert lacking == ["phases"]
