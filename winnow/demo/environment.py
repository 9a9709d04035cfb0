"""The files of a Python environment, by paths that do not depend on where it lies.

Nothing is imported or run: files are listed, read and parsed.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# What an installer writes per installation, what is no text of a package, and this project itself.
_SKIPPED_FOLDERS = re.compile(
    r"__pycache__|site-packages|dist-packages|lib-dynload|config-.*|bin|winnow|winnow-.*\.(dist|egg)-info|\..*"
)
_SKIPPED_FILES = re.compile(
    r"__editable__.*|_sysconfigdata.*|RECORD.*|INSTALLER|REQUESTED|WHEEL|direct_url\.json|top_level\.txt"
    r"|entry_points\.txt|SOURCES\.txt|.*\.(pyc|pth|so|dll|dylib)|\..*"
)


@dataclass(frozen=True)
class Environment:
    """Where a Python installation keeps its standard library and its packages."""

    stdlib: Path
    packages: tuple[Path, ...]
    prefix: str

    @classmethod
    def current(cls) -> Environment:
        """Return the environment of the running interpreter."""
        folders = dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
        return cls(
            Path(sysconfig.get_path("stdlib")), tuple(folders), sys.prefix if sys.prefix != sys.base_prefix else ""
        )


@dataclass(frozen=True)
class SourceFile:
    """A file of the environment: ``path`` starts with ``stdlib/`` or ``site-packages/``."""

    path: str
    package: str
    root: Path

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def location(self) -> Path:
        return self.root / self.path.partition("/")[2]

    @property
    def tail(self) -> str:
        """Folder and name: what a vendored copy shares with its original."""
        return "/".join(self.path.split("/")[-2:])


def list_files(environment: Environment) -> list[SourceFile]:
    """Return every file of the environment that may hold text, sorted by path; symbolic links are not followed."""
    found = _walk(environment.stdlib, "stdlib", "stdlib")
    for folder in environment.packages:
        found += _walk(folder, "site-packages", None)
    return sorted({file.path: file for file in found}.values(), key=lambda file: file.path)


def read_text(file: SourceFile, environment: Environment, largest: int = 4_000_000) -> str | None:
    """Return a file's text with line feeds alone, or None.

    None for a file of more than ``largest`` bytes, one that is not UTF-8, or one that holds the environment's own path.
    """
    try:
        if file.location.stat().st_size > largest:
            return None
        raw = file.location.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if "\0" in text or (environment.prefix and environment.prefix in text):
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _walk(root: Path, label: str, package: str | None) -> list[SourceFile]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _SKIPPED_FOLDERS.fullmatch(name)]
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = f"{label}/" if inside == "." else f"{label}/{inside}/"
        for name in names:
            if _SKIPPED_FILES.fullmatch(name) or (name == "topics.py" and inside == "pydoc_data"):
                continue
            top = name if inside == "." else inside.split("/")[0]
            owner = package or re.sub(r"-[^-]*\.(dist|egg)-info$|\.[a-z]+$", "", top)
            found.append(SourceFile(prefix + name, owner, root))
    return found
