"""The formats of corpus files: which there are, and which one a file's name says."""

from __future__ import annotations

import importlib
import os
import pkgutil
from functools import cache
from pathlib import PurePath

from winnow.errors import UserError
from winnow.text.formats.base import WHOLE, Block, Cut, Format, Item, Reading, Span

__all__ = [
    "COMPRESSIONS",
    "WHOLE",
    "Block",
    "Cut",
    "Format",
    "Item",
    "Reading",
    "Span",
    "format_named",
    "format_of",
    "known_suffixes",
    "suffixes",
]

COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".bz2": "bz2", ".xz": "xz"}


@cache
def formats() -> dict[str, Format]:
    """Return every format by each name that it goes by."""
    found: dict[str, Format] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            loaded = importlib.import_module(f"{__name__}.{module.name}")
            for kind in vars(loaded).values():
                if isinstance(kind, type) and issubclass(kind, Format) and kind.__module__ == loaded.__name__:
                    found |= dict.fromkeys(kind.suffixes.values(), kind())
    return found


@cache
def known_suffixes() -> dict[str, str]:
    """Return the format's name for every suffix, compression left aside."""
    return {suffix: name for one in set(formats().values()) for suffix, name in one.suffixes.items()}


def suffixes() -> str:
    """Return all suffixes of corpus files for people: ``.arrow, .csv, .jsonl, ...``."""
    return ", ".join(sorted(known_suffixes()))


def format_of(path: PurePath | str, declared: str = "") -> str | None:
    """Return the format that a file's name says, or None when it is no corpus file's.

    One of the registered names, with the compression if there is one: ``jsonl``, ``jsonl.zst``, ``csv.gz``,
    ``parquet``; the case of suffixes does not matter. ``declared`` is a format's name that holds whatever the suffix
    says (the compression is still told by it). Raises ``UserError`` for a declared name that is none.
    """
    name = PurePath(path).name.lower()
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - on the name alone
    compression = COMPRESSIONS.get(suffix)
    if declared:
        compressible = format_named(declared)[0].compressible
        return f"{declared}.{compression}" if compression and compressible else declared
    suffixes = known_suffixes()
    if suffix in suffixes:
        return suffixes[suffix]
    inner = suffixes.get(os.path.splitext(stem)[1])  # noqa: PTH122
    if compression and inner and formats()[inner].compressible:
        return f"{inner}.{compression}"
    return None


def format_named(name: str) -> tuple[Format, str, str | None]:
    """Return the format, its name and the compression of ``jsonl.zst`` and the like. Raises ``UserError``."""
    kind, _, compression = name.partition(".")
    if kind not in formats():
        raise UserError(f"there is no format '{kind}'; there is: {', '.join(sorted(formats()))}")
    return formats()[kind], kind, compression or None
