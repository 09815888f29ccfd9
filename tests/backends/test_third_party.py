"""Backends that other packages register: the good are used, the broken are reported.

Each is installed as pip would: a module and its dist-info in a folder on the search path.
"""

from __future__ import annotations

from pathlib import Path

from tests import fresh

GOOD = """
from typing import Any
from rotary_spec_backends.numpy_backend import NumpyBackend
from rotary_spec_backends.frameworks import NumpyFramework
import numpy as np

class AcmeArray(np.ndarray):
    pass

class AcmeFramework(NumpyFramework):
    name = "acme"

    @classmethod
    def _array_type(cls, module):
        return AcmeArray

class AcmeBackend(NumpyBackend):
    name = "acme"
    extra = "acme"
    framework_type = AcmeFramework
"""


def install(folder: Path, module: str, source: str | None, point: str) -> None:
    """A distribution of that one module, registering one backend."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rotary_spec.backends]\n{point}\n")
    if source is not None:
        (folder / f"{module}.py").write_text(source)


PRELUDE = """
import json, sys, warnings
import rotary_spec as rs
import rotary_spec_backends as rb
loaded_early = "acme" in sys.modules

def statuses(*names):
    return [[s.name, s.usable, s.reason] for s in rb.available() if s.name in names]

def failure(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return [type(error).__name__, str(error)]
"""


def test_good_backend(tmp_path: Path) -> None:
    """Selectable by name, listed, found by array; and not imported before it is asked for."""
    install(tmp_path, "acme", GOOD, "acme = acme:AcmeBackend")
    found = fresh.run(
        PRELUDE
        + """
import numpy as np
for_numpy = rb.for_array(np.ones((1, 4))).name
still_unloaded = "acme" not in sys.modules
backend = rb.select("acme")
from acme import AcmeArray
x = np.ones((1, 4)).view(AcmeArray)
y = backend.rotate(np.ones((1, 4)).view(AcmeArray), [0], rs.RotarySpec(4))
print(json.dumps([loaded_early, still_unloaded, for_numpy, backend.name, statuses("acme"),
                  np.asarray(y).tolist()]))
""",
        tmp_path,
    )
    assert found == [False, True, "numpy", "acme", [["acme", True, None]], [[1.0] * 4]]


STUB = "from rotary_spec_backends import Backend\nclass B(Backend): pass"
RAISING = (
    GOOD.replace("AcmeBackend", "B")
    + """
    @classmethod
    def _devices(cls):
        raise OSError("no driver")
"""
)
BROKEN = {
    "absent": (None, "failed to import: No module named 'absent'"),
    "needy": ("import nothing_like_it", "failed to import: No module named 'nothing_like_it'"),
    "failing": ("1 / 0", "failed to import: division by zero"),
    "empty": ("", "failed to import: module 'empty' has no attribute 'B'"),
    "number": ("B = 3", "is not a rotary_spec_backends.Backend"),
    "stranger": ("class B: pass", "is not a rotary_spec_backends.Backend"),
    "stub": (STUB, "is unfinished: it lacks _devices, _ids, _rotate, extra, framework_type, name"),
}


def test_broken_backends(tmp_path: Path) -> None:
    """Each is listed with the reason, raises that on use, and disturbs nobody else."""
    for name, (source, _) in BROKEN.items():
        install(tmp_path, name, source, f"{name} = {name}:B")
    install(tmp_path, "acme", RAISING, "acme = acme:B")
    names = [*BROKEN, "acme"]
    listed, selecting, searching, chosen = fresh.run(
        f"names = {names}\n"
        + PRELUDE
        + """
import numpy as np
print(json.dumps([statuses("numpy", *names), [failure(rb.select, name) for name in names],
                  failure(rb.for_array, [1]), rb.for_array(np.ones(1)).name]))
""",
        tmp_path,
    )
    reasons = {name: f"{name}:B {problem}" for name, (_, problem) in BROKEN.items()}
    reasons["acme"] = "no device: no driver"  # code of a third party may fail at any time
    assert listed[0] == ["numpy", True, None]
    assert sorted(listed[1:]) == sorted([name, False, why] for name, why in reasons.items())
    for name, raised in zip(names, selecting):
        text = f"backend {name!r} cannot be used: {reasons[name]}"
        assert raised == ["BackendUnavailable", text]
    assert searching[0] == "DtypeError"
    assert chosen == "numpy"


def test_taken_names_are_ignored(tmp_path: Path) -> None:
    """Nobody replaces a built-in backend by installing a package; a warning says so."""
    install(tmp_path, "acme", GOOD, "numpy = acme:AcmeBackend")
    found = fresh.run(
        PRELUDE
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    backend = rb.select("numpy")
print(json.dumps([type(backend).__name__, [str(w.message) for w in caught]]))
""",
        tmp_path,
    )
    assert found == [
        "NumpyBackend",
        ["backend 'numpy' of acme:AcmeBackend is ignored: the name is taken"],
    ]
