"""Where figures come from: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rotary_spec as rs
from rotary_spec_backends.host.threads import VARIABLES, num_threads

_PACKAGES = (
    "numpy", "numba", "llvmlite", "ml-dtypes", "torch", "triton", "jax", "jaxlib", "cupy-cuda12x",
    "cupy-cuda13x", "transformers", "rotary-embedding-torch", "torchtune", "liger-kernel",
    "fla-core", "flash-attn", "onnxruntime", "mlx",
)  # fmt: skip


def provenance(device: str) -> dict[str, Any]:
    """Everything about the machine and the software that a figure may depend on."""
    return {
        "rotary_spec": rs.__version__,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "threads": {"numpy": num_threads(), **_torch_threads(), **_variables()},
        "gpu": _gpu() if device == "cuda" else None,
        "versions": _versions(),
    }


def _git(*arguments: str) -> str | None:
    """What git says of this file's checkout; None where it is installed without one."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _torch_threads() -> dict[str, int]:
    try:
        import torch
    except ImportError:
        return {}
    return {"torch": torch.get_num_threads()}


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _gpu() -> str | None:
    fields = "name,uuid,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
