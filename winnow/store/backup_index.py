"""What a backup says of itself: the index that is written last, and believed only in the form that a backup gives it.

A backup may come from elsewhere, and a checksum is no signature: every name in the index that becomes a path or a part
of a statement has to be a plain one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from winnow.errors import UserError
from winnow.identity import digest
from winnow.store.part_files import PART_DIGITS

FORMAT = "winnow-backup-1"
INDEX = "index.json"
CONFIG = "winnow.toml"
FOLDERS = ("manifests", "artifacts", "checkpoints")
"""The folders of a home whose files a backup holds."""
REQUIRED_TABLES = {"meta", "parts", "snapshots", "manifests"}
"""The tables without which nothing says which parts belong to a store."""

PLAIN = re.compile(r"[a-z][a-z0-9_]*")
PART = re.compile(rf"[0-9a-f]{{{PART_DIGITS}}}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def backup_names(target: Path) -> list[str]:
    """Return the backups in a folder, oldest first."""
    return sorted(path.parent.name for path in target.glob(f"backups/*/{INDEX}"))


def read_index(target: Path, name: str | None = None) -> dict[str, Any]:
    """Return the index of a backup (the newest unless named).

    Raises :class:`UserError`: none, no such, damaged, or one that names what no backup holds.
    """
    names = backup_names(target)
    if not names:
        raise UserError(f"there is no backup in {target}: `winnow backup {target}` makes one")
    if name is not None and name not in names:
        raise UserError(f"there is no backup '{name}' in {target}; there is: {', '.join(names)}")
    path = target / "backups" / (name or names[-1]) / INDEX
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        said = record.pop("checksum")
        found = digest(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): restore another backup with --backup NAME") from error
    if said != found:
        raise UserError(f"{path} was changed after it was written: restore another backup with --backup NAME")
    if record.get("format") != FORMAT:
        raise UserError(f"{path} has format {record.get('format')}, expected {FORMAT}: restore it with a newer Winnow")
    try:
        wrong = next(_strange(record, path.parent.name), None)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        wrong = f"it lacks what an index has ({error!r})"
    if wrong:
        raise UserError(f"{path}: {wrong}; Winnow writes no such index. Restore another backup with --backup NAME")
    return dict(record)


def _strange(record: dict[str, Any], folder: str) -> Iterator[str]:
    """Yield what in an index is not as a backup writes it."""
    if record["name"] != folder:
        yield f"its name is {record['name']!r}"
    if not re.fullmatch(r"[0-9]{1,9}", record["schema_version"]):
        yield f"its schema version is {record['schema_version']!r}"
    if missing := REQUIRED_TABLES - record["tables"].keys():
        yield f"it lacks the table {min(missing)}"
    for table, file in record["tables"].items():
        if not (PLAIN.fullmatch(table) and SHA256.fullmatch(file["sha256"])):
            yield f"{table!r} is no table with its SHA-256"
    for part in record["parts"]:
        if not (PLAIN.fullmatch(part["kind"]) and PART.fullmatch(part["digest"])):
            yield f"{part['kind']!r} with {part['digest']!r} is no kind of part with its digest"
    for file in record["files"]:
        if not (_in_home(file["path"]) and SHA256.fullmatch(file["sha256"])):
            yield f"{file['path']!r} is no file of a home with its SHA-256"
    for file in [*record["tables"].values(), *record["parts"], *record["files"]]:
        if not isinstance(file["bytes"], int):
            yield f"{file['bytes']!r} is no number of bytes"


def _in_home(name: str) -> bool:
    """Return whether a relative path leads to a file that a backup takes from a home, and nowhere else."""
    steps = PurePosixPath(name).parts
    held = name == CONFIG or (len(steps) > 1 and steps[0] in FOLDERS)
    return held and ".." not in steps and "\0" not in name
