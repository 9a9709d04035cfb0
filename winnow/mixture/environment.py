"""What is recorded beside a manifest: the machine and the libraries that a bitwise rerun needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("winnow", "numpy", "pyarrow", "duckdb", "torch", "tokenizers", "sentence-transformers", "faiss-cpu")


def recorded_environment(dtype: str) -> dict[str, str | dict[str, str]]:
    """Return Python, libraries, CPU class (architecture and widest vector unit) and the model's ``dtype``.

    A manifest's digest is promised for the same CPU class, number of cores and dtype, whatever the rest.
    """
    libraries, cores = {}, str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "libraries": libraries,
        "cpu_class": cpu_class(),
        "cores": cores,
        "dtype": dtype,
    }


def cpu_class() -> str:
    """Return the architecture and, where the system tells, the widest vector unit: ``x86_64+avx512f``."""
    machine, info = platform.machine(), Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.is_file() else set()
    widest = next((unit for unit in ("avx512f", "avx2", "sve", "asimd") if unit in words), None)
    return f"{machine}+{widest}" if widest else machine
