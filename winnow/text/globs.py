"""Globs below a root: which files they take, and which folders can hold one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from winnow.errors import UserError

Parts = tuple[str, ...]
"""A path relative to the root, cut at its slashes."""

UNFINISHED_SUFFIXES = (".tmp", ".part", ".partial")


def is_ignored(name: str) -> bool:
    """Say whether a file or folder of this name is never part of a corpus (hidden, a marker, or not yet complete)."""
    return name.startswith((".", "_")) or name.lower().endswith(UNFINISHED_SUFFIXES)


class Globs:
    """The globs of one location: relative to its root, ``**`` stands for any number of folders, ``*`` stays within one.

    ``markers`` are file names that are taken too, wherever the globs lead through their folder. ``place`` names the
    root in messages. Raises ``UserError`` for a glob that leaves the root.
    """

    def __init__(self, place: str, include: Sequence[str], markers: Collection[str] = ()) -> None:
        self._patterns = [_pattern(place, glob) for glob in include]
        self._markers = frozenset(markers)

    def match(self, file: Parts) -> bool:
        """Say whether one of the globs takes the file."""
        return any(_matches(file, pattern) for pattern in self._patterns)

    def takes(self, file: Parts) -> bool:
        """Say whether the file is to be listed: matched by a glob, or a marker in a folder that the globs lead to."""
        return self.match(file) or (file[-1] in self._markers and self.leads_to(file[:-1]))

    def leads_to(self, folder: Parts) -> bool:
        """Say whether a file below the folder can match, so that nothing else is walked."""
        return any(_leads_to(folder, pattern) for pattern in self._patterns)

    def folders(self) -> list[Parts]:
        """Return the fewest folders below which everything lies that can match: ``()`` is the root."""
        kept: list[Parts] = []
        for start in sorted(_literal_folder(pattern) for pattern in self._patterns):
            if not any(start[: len(above)] == above for above in kept):
                kept.append(start)
        return kept

    def names(self) -> list[str] | None:
        """Return the globs' paths if every one of them names a single file, else None."""
        if not self._patterns or any(map(_is_magic, (part for pattern in self._patterns for part in pattern))):
            return None
        return sorted({"/".join(pattern) for pattern in self._patterns})


def _pattern(place: str, glob: str) -> Parts:
    parts = tuple(part for part in glob.split("/") if part != ".")
    if glob.startswith("/") or ".." in parts or not all(parts):
        raise UserError(
            f"include {glob!r} of {place}: a glob is relative to the source's folder, such as '**/*.jsonl.zst'"
        )
    return parts


def _is_magic(part: str) -> bool:
    return any(character in part for character in "*?[")


def _literal_folder(pattern: Parts) -> Parts:
    for index, part in enumerate(pattern):
        if _is_magic(part):
            return pattern[:index]
    return pattern[:-1]


def _matches(parts: Parts, pattern: Parts) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _leads_to(folder: Parts, pattern: Parts) -> bool:
    if not folder:
        return bool(pattern)
    if not pattern:
        return False
    return pattern[0] == "**" or (fnmatchcase(folder[0], pattern[0]) and _leads_to(folder[1:], pattern[1:]))
