"""The memory limit of the settings in bytes, read as DuckDB reads it; shares are of what this process may have."""

from __future__ import annotations

import os
import re
from pathlib import Path

from winnow.errors import UserError

UNITS = dict.fromkeys(("b", "byte", "bytes"), 1)
for power, (letter, decimal, binary) in enumerate(
    [("k", "kilobyte", "kibibyte"), ("m", "megabyte", "mebibyte"), ("g", "gigabyte", "gibibyte"),
     ("t", "terabyte", "tebibyte")], 1,
):  # fmt: skip
    UNITS |= dict.fromkeys((letter, f"{letter}b", decimal, f"{decimal}s"), 1000**power)
    UNITS |= dict.fromkeys((f"{letter}ib", binary, f"{binary}s"), 1024**power)
WITHOUT = ("none", "null")
GROUPS = Path("/sys/fs/cgroup")


def memory_bytes(limit: str) -> int | None:
    """Return a ``store.memory_limit`` such as ``2GB``, ``512M``, ``1.5 GiB`` or ``80%`` in bytes; None: no limit.

    Raises :class:`UserError` for what is no limit.
    """
    text = limit.strip().lower()
    if text in WITHOUT or text.startswith("-"):
        return None
    found = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?|\.\d+)\s*(%|[a-z]+).*", text)
    if found is not None and found[2] == "%" and 0 < float(found[1]) <= 100:
        return round(_available() * float(found[1]) / 100)
    if found is None or found[2] not in UNITS:
        raise UserError(f"store.memory_limit is '{limit}'; set a number with a unit or a share, such as 2GB or 50%")
    return round(float(found[1]) * UNITS[found[2]])


def duckdb_limit(limit: str) -> str:
    """Return the limit as DuckDB takes it, which knows no shares."""
    return f"{memory_bytes(limit)}B" if limit.strip().endswith("%") else limit


def _available() -> int:
    """Return the machine's memory, or what the process's control groups leave of it."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _limit_files():
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits)


def _limit_files(lines: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Return where the limits of the process's control group and of those around it would lie, of either version."""
    try:
        groups = [line.split(":", 2)[1:] for line in lines.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for controllers, name in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root, file = (GROUPS / "memory", "memory.limit_in_bytes") if controllers else (GROUPS, "memory.max")
        group = root / name.lstrip("/")
        found += [place / file for place in (group, *group.parents) if place.is_relative_to(root)]
    return found
