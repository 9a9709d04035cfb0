"""What makes a forward pass repeatable and quiet: the number format of a CPU and batches of a fixed shape.

A matrix product may round a row differently when the number of rows changes, so the same document could get another
vector or another loss in another batch. Here every batch has one of a few fixed shapes, filled up with dummy rows:
what a document gets depends on the document and its own length only, never on its batch mates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from winnow.errors import UserError

DTYPES = ("float32", "bfloat16")


def has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX-BF16); False where it cannot tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_dtype(dtype: str) -> str:
    """Return ``float32`` or ``bfloat16``; ``auto`` means bfloat16 where the CPU has it. Raises UserError on others."""
    if dtype == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    if dtype not in DTYPES:
        raise UserError(f"dtype '{dtype}' is unknown; set dtype to auto, {' or '.join(DTYPES)}")
    return dtype


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars while it reads or writes weights; a library does not print."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def widths(longest: int) -> np.ndarray:
    """Return the fixed sequence lengths, int64 ascending: steps of an eighth to a half, all multiples of 16."""
    steps = [16, 32, 48, 64, 96, 128, 160, 192, 224, 256]
    while steps[-1] < longest:
        steps.append(steps[-1] + steps[-1] // 128 * 16)
    return np.array(steps[: int(np.searchsorted(steps, longest)) + 1], dtype=np.int64)


def fixed_batches(lengths: np.ndarray, longest: int, tokens: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Group sequences into batches of fixed shape, longest first.

    ``lengths`` is int ``[N]``, each at most ``longest``. Yields ``(width, rows, indices)``: the batch is to be padded
    to ``[rows, width]`` with ``rows = max(1, tokens // width)``, its first ``len(indices) <= rows`` rows are real.
    """
    steps = widths(longest)
    bucket = np.searchsorted(steps, lengths)
    for step in range(len(steps) - 1, -1, -1):
        members = np.flatnonzero(bucket == step)
        width = int(steps[step])
        rows = max(1, tokens // width)
        for start in range(0, len(members), rows):
            yield width, rows, members[start : start + rows]
