"""Compiled loops on disk are those of the sources at hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import winnow
from winnow.compiled import kernel, sources_digest

ROOT = Path(winnow.__file__).parent
MODULES = [
    ".".join(("winnow", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("_*_kernels.py")) + sorted(ROOT.rglob("_kernels.py")) + sorted(ROOT.rglob("_gap*.py"))
]


def test_a_cached_loop_is_valid_for_one_state_of_all_kernel_modules():
    cached = []
    for name in MODULES:
        importlib.import_module(name)
        for function in vars(sys.modules[name]).values():
            index = getattr(getattr(function, "_cache", None), "_cache_file", None)
            if index is not None:
                cached.append(f"{name}.{function.__name__}")
                assert index._source_stamp == sources_digest(), cached[-1]
    assert {name.split(".")[1] for name in cached} == {"contamination", "dedup", "quality", "selection", "text"}


def test_options_of_a_loop_are_kept():
    loop = kernel(fastmath=True)(lambda value: value + 1.0)
    assert loop.targetoptions["fastmath"] is True
    assert loop(1.0) == 2.0
