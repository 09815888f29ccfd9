"""A fresh interpreter, for what depends on which modules are loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROOMS = ("", "backends", "conformance", "bench")


def run(code: str, *paths: Path) -> Any:
    """Run ``code`` with warnings as errors and give what it printed, which must be JSON.

    ``paths`` come first on the module search path; the rooms of the checkout follow.
    """
    search = [*map(str, paths), *(str(ROOT / room) for room in ROOMS)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
