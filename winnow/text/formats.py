"""Which files are corpus files: formats by suffix, and the files under a source's root."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from winnow.errors import UserError

JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json")
COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}
WHOLE_FILE_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
}
UNFINISHED_SUFFIXES = (".tmp", ".part", ".partial")


def format_of(path: Path) -> str | None:
    """Return the format that a file's name says, or None when it is no corpus file.

    One of ``jsonl``, ``jsonl.gz``, ``jsonl.zst``, ``parquet``, ``text``, ``markdown``; the case of the suffix does
    not matter.
    """
    name = path.name.lower()
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - on the name alone
    if suffix in WHOLE_FILE_SUFFIXES:
        return WHOLE_FILE_SUFFIXES[suffix]
    if suffix in JSON_LINES_SUFFIXES:
        return "jsonl"
    if suffix in COMPRESSIONS and stem.endswith(JSON_LINES_SUFFIXES):
        return f"jsonl.{COMPRESSIONS[suffix]}"
    return None


def is_ignored(name: str) -> bool:
    """Say whether a file or folder of this name is never part of a corpus (hidden, a marker, or not yet complete)."""
    return name.startswith((".", "_")) or name.lower().endswith(UNFINISHED_SUFFIXES)


def discover(root: Path, include: Sequence[str]) -> list[Path]:
    """Return the corpus files under ``root`` that match one of the globs, sorted by their path relative to it.

    A glob is relative to ``root``, ``**`` stands for any number of folders and ``*`` stays within one. Names that
    begin with ``.`` or ``_`` or end in ``.tmp``, ``.part``, ``.partial`` are ignored, folders too. Linked folders are
    followed, each folder is visited once (under its own name rather than a link's), so loops end. A link that leads
    nowhere is returned: reading it reports it. Raises ``UserError`` for a root or folder that cannot be listed, lest
    its files look withdrawn.
    """
    patterns = [_pattern(root, glob) for glob in include]
    found: list[tuple[str, ...]] = []
    visited: set[tuple[int, int]] = set()
    folders: list[tuple[str, ...]] = [()]
    links: list[tuple[str, ...]] = []
    while folders or links:
        parts = folders.pop() if folders else links.pop()
        entries, identity = _listing(root.joinpath(*parts))
        if identity in visited:
            continue
        visited.add(identity)
        for entry in entries:
            if is_ignored(entry.name):
                continue
            here = (*parts, entry.name)
            if _is_folder(entry):
                if any(_leads_to(here, pattern) for pattern in patterns):
                    (links if entry.is_symlink() else folders).append(here)
            elif _is_delivered(entry) and any(_matches(here, pattern) for pattern in patterns):
                found.append(_utf8_name(root, here))
        links.sort(reverse=True)
    return [root.joinpath(*parts) for parts in sorted(found)]


def _pattern(root: Path, glob: str) -> tuple[str, ...]:
    parts = tuple(part for part in glob.split("/") if part != ".")
    if glob.startswith("/") or ".." in parts or not all(parts):
        raise UserError(
            f"include {glob!r} of {root}: a glob is relative to the source's folder, such as '**/*.jsonl.zst'"
        )
    return parts


def _listing(folder: Path) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name), (status.st_dev, status.st_ino)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): name an existing, readable folder") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_delivered(entry: os.DirEntry[str]) -> bool:
    if format_of(Path(entry.name)) is None:
        return False
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _utf8_name(root: Path, parts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        "/".join(parts).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{root}: the name of the file {'/'.join(parts)!r} is not UTF-8; rename it") from error
    return parts


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _leads_to(folder: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Say whether a file below a folder can match, so that nothing else is walked."""
    if not folder:
        return bool(pattern)
    if not pattern:
        return False
    return pattern[0] == "**" or (fnmatchcase(folder[0], pattern[0]) and _leads_to(folder[1:], pattern[1:]))
