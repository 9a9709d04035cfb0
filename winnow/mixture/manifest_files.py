"""Manifests on disk: ``vNNNN/manifest.json`` and ``vNNNN/rows.parquet``, written whole or not at all, and checked."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.durable import sync
from winnow.errors import UserError
from winnow.identity import digest, digest_file
from winnow.mixture.manifest import (
    BATCH_ROWS,
    FORMAT,
    ROWS,
    Manifest,
    count_sources,
    manifest_digest,
    row_problems,
)

RECORD_FILE = "manifest.json"
ROWS_FILE = "rows.parquet"
VERSION = re.compile(r"v\d{4,}")


@dataclass(frozen=True)
class Verification:
    """The outcome of a check: ``ok``, or the problems, each a sentence that names its place."""

    folder: Path
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems


def manifest_versions(root: Path) -> list[str]:
    """Return the versions under ``root``, oldest first; anything half written is not one."""
    found = [path.name for path in root.iterdir() if VERSION.fullmatch(path.name)] if root.is_dir() else []
    return sorted(found, key=lambda name: int(name[1:]))


def next_version(root: Path) -> str:
    """Return the version after the newest one: ``v0001``, ``v0002``, ..."""
    versions = manifest_versions(root)
    return f"v{int(versions[-1][1:]) + 1 if versions else 1:04d}"


@dataclass(frozen=True)
class Draft:
    """The rows of a manifest that has no version yet: the folder that will be its own, the SHA-256 of its rows."""

    folder: Path
    rows_sha256: str


def write_manifest(manifest: Manifest, root: Path, unlisted: bool = False) -> Path:
    """Write ``root/vNNNN`` atomically and return it: :func:`draft_rows` and :func:`place_manifest` at once."""
    there = _already(manifest, root, unlisted)
    if there is not None:
        return there
    with draft_rows(manifest.rows, root) as draft:
        return place_manifest(manifest, draft, unlisted)


@contextmanager
def draft_rows(rows: pa.Table, root: Path) -> Iterator[Draft]:
    """Write and sync the rows of a manifest to be under ``root``; a draft that is not placed goes with the block.

    It is all that takes long, so that a transaction needs to do no more than :func:`place_manifest`.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f".v-{secrets.token_hex(8)}.partial"
    folder.mkdir()
    try:
        pq.write_table(rows, folder / ROWS_FILE, compression="zstd", row_group_size=8 * BATCH_ROWS)
        sync(folder / ROWS_FILE)
        yield Draft(folder, digest_file(folder / ROWS_FILE))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place_manifest(manifest: Manifest, draft: Draft, unlisted: bool = False) -> Path:
    """Add the record to the drafted rows of this manifest and give the folder its name.

    Whoever looks sees no folder or a whole one. A version that is there already with the same digest is left as it is,
    or, where no store lists it yet (``unlisted``: a run was killed), replaced by what this run records of itself.
    Raises :class:`UserError` when it is there with another digest, or when the version is no ``vNNNN``.
    """
    root = draft.folder.parent
    there = _already(manifest, root, unlisted)
    if there is not None:
        return there
    record = {**manifest.record(), "rows_sha256": draft.rows_sha256}
    record["checksum"] = digest(record)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (draft.folder / RECORD_FILE).write_text(text, encoding="utf-8")
    sync(draft.folder / RECORD_FILE)
    sync(draft.folder)
    folder = root / manifest.version
    if folder.exists():
        old = root / f".{manifest.version}-{secrets.token_hex(8)}.partial"
        folder.replace(old)
        shutil.rmtree(old, ignore_errors=True)
    draft.folder.replace(folder)
    sync(root)
    return folder


def _already(manifest: Manifest, root: Path, unlisted: bool) -> Path | None:
    """Return the folder of the version, if it is there and stays. Raises :class:`UserError` when it cannot be his."""
    if not VERSION.fullmatch(manifest.version):
        raise UserError(f"manifest version '{manifest.version}': expected v and at least four digits, as in v0001")
    folder = root / manifest.version
    if not folder.exists():
        return None
    there = _load_record(folder)["digest"]
    if there != manifest.digest:
        raise UserError(f"{folder}: holds another manifest ({there}); manifests never change, take the next version")
    return None if unlisted else folder


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest without checking it (:func:`verify_manifest` does). Raises :class:`UserError` if it cannot."""
    record = _load_record(folder)
    try:
        rows = pq.read_table(folder / ROWS_FILE).select(ROWS.names).cast(ROWS).combine_chunks()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{folder / ROWS_FILE}: cannot be read ({error}); reproduce the manifest") from error
    names = {entry.name for entry in fields(Manifest)} - {"rows"}
    absent = sorted(names - set(record))
    if absent:
        raise UserError(f"{folder / RECORD_FILE}: no field '{absent[0]}'; reproduce the manifest")
    return Manifest(**{name: record[name] for name in names}, rows=rows)


def verify_manifest(folder: Path) -> Verification:
    """Recompute everything a manifest says of itself from its files: checksums, digest, order, ids, sums, budget."""
    try:
        record = _load_record(folder)
    except UserError as error:
        return Verification(folder, [str(error)])
    problems: list[str] = []
    if record.get("format") != FORMAT:
        problems.append(f"{RECORD_FILE}: format is {record.get('format')!r}, expected '{FORMAT}'")
    if record.get("version") != folder.name:
        problems.append(f"{RECORD_FILE}: version is {record.get('version')!r}, but the folder is '{folder.name}'")
    if record.get("checksum") != digest({name: value for name, value in record.items() if name != "checksum"}):
        problems.append(f"{RECORD_FILE}: was changed after it was written; its checksum does not fit")
    path = folder / ROWS_FILE
    try:
        if digest_file(path) != record.get("rows_sha256"):
            problems.append(f"{ROWS_FILE}: was changed after it was written; its SHA-256 does not fit")
        problems += _verify_rows(path, record)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        problems.append(f"{ROWS_FILE}: cannot be read: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        problems.append(f"{RECORD_FILE}: a field is missing or of the wrong type: {error}")
    return Verification(folder, problems)


def _verify_rows(path: Path, record: dict[str, Any]) -> list[str]:
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(ROWS):
            return [f"{ROWS_FILE}: its columns are {file.schema_arrow.names}, expected {ROWS.names}, or a type differs"]

        def batches() -> Iterator[pa.RecordBatch]:
            yield from file.iter_batches(BATCH_ROWS)

        problems = row_problems(batches())
        if any(problem.endswith("is null") for problem in problems):
            return problems
        counted = count_sources(batches())
        found = manifest_digest(
            batches(), record["configuration"], record["inputs"], record["seed"], record["token_budget"]
        )
    tokens = sum(entry["tokens"] for entry in counted.values())
    documents = sum(entry["documents"] for entry in counted.values())
    for name, said, is_there in (("documents", record["documents"], documents), ("tokens", record["tokens"], tokens)):
        if said != is_there:
            problems.append(f"{RECORD_FILE}, {name}: says {said}, the rows have {is_there}")
    for source in sorted({*counted, *record["sources"]}):
        planned = {key: record["sources"].get(source, {}).get(key, 0) for key in ("documents", "tokens")}
        present = counted.get(source, {"documents": 0, "tokens": 0})
        if planned != present:
            problems.append(f"{RECORD_FILE}, source '{source}': says {planned}, the rows have {present}")
    if tokens > record["token_budget"]:
        problems.append(f"{ROWS_FILE}: {tokens:,} tokens, over the budget of {record['token_budget']:,}")
    if found != record["digest"]:
        problems.append(f"{RECORD_FILE}, digest: says {record['digest']}, configuration, inputs and rows give {found}")
    return problems


def _load_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); reproduce the manifest") from error
    if not isinstance(record, dict) or "digest" not in record:
        raise UserError(f"{path}: is no manifest; reproduce it")
    return record
