"""Content identity: document ids, digests and seeded keys.

A document *is* its text: ``doc_id`` = xxh3-128 of the UTF-8 bytes. Ids travel as 16-byte ``arrow.uuid`` columns
(UUID in DuckDB), never as one Python object a row. Every seeded choice (which documents to probe, which to draw at
random) hashes the id with the seed, so it does not depend on the order in which documents arrived.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

UUID = pa.uuid()


def doc_id(text: str) -> uuid.UUID:
    """Return the id of one text. Raises ``UnicodeEncodeError`` on a lone surrogate."""
    return uuid.UUID(bytes=xxhash.xxh3_128_digest(text.encode()))


def doc_ids(texts: Iterable[str]) -> pa.Array:
    """Return the ids of many texts as an ``arrow.uuid`` array of the same length."""
    digest = xxhash.xxh3_128_digest
    return ids_from_bytes(b"".join([digest(text.encode()) for text in texts]))


def ids_from_bytes(raw: bytes) -> pa.Array:
    """Wrap ``16 * N`` bytes as an ``arrow.uuid`` array of N ids."""
    if len(raw) % 16:
        raise ValueError(f"{len(raw)} bytes are no whole number of 16-byte ids")
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(raw) // 16, [None, pa.py_buffer(raw)])
    return pa.ExtensionArray.from_storage(UUID, storage)


def stored_ids(ids: pa.Array) -> pa.Array:
    """Return an ``arrow.uuid`` (or ``binary(16)``) array as ``binary(16)``, which Arrow's kernels can compare."""
    return ids.storage if isinstance(ids, pa.ExtensionArray) else ids


def ids_to_numpy(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return an ``arrow.uuid`` (or ``binary(16)``) column without nulls as uint8 ``[N, 16]``."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
        if isinstance(ids, pa.ChunkedArray):  # zero chunks, or an old pyarrow
            ids = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], ids.type)
    storage = stored_ids(ids)
    if storage.null_count:
        raise ValueError("a document id is null")
    raw = np.frombuffer(storage.buffers()[1] or b"", dtype=np.uint8)
    return raw[storage.offset * 16 : (storage.offset + len(storage)) * 16].reshape(-1, 16)


def ids_from_numpy(ids: np.ndarray) -> pa.Array:
    """Inverse of :func:`ids_to_numpy`."""
    return ids_from_bytes(np.ascontiguousarray(ids, dtype=np.uint8).tobytes())


def ids_as_keys(ids: np.ndarray) -> np.ndarray:
    """View uint8 ``[N, 16]`` ids as ``[N]`` structured big-endian pairs that sort in byte order."""
    return np.ascontiguousarray(ids).view(np.dtype([("high", ">u8"), ("low", ">u8")])).reshape(-1)


def seeded_keys(ids: np.ndarray, seed: int, salt: str = "") -> np.ndarray:
    """Return a uint64 ``[N]`` key per id, uniform and independent of order; sort by it to draw at random.

    ``ids`` is uint8 ``[N, 16]``. The same id, seed and salt give the same key on every machine.
    """
    prefix = f"{seed}:{salt}:".encode()
    digest = xxhash.xxh3_64_intdigest
    raw = np.ascontiguousarray(ids, dtype=np.uint8).tobytes()
    return np.fromiter(
        (digest(prefix + raw[start : start + 16]) for start in range(0, len(raw), 16)), dtype=np.uint64, count=len(ids)
    )


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no white space, so that equal values give equal text.

    Floats are written by ``repr`` (shortest form that reads back exactly). NaN and infinity raise ``ValueError``.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 hex digest of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_ids(ids: np.ndarray) -> str:
    """Return the SHA-256 hex digest of a *set* of ids (uint8 ``[N, 16]``), whatever their order."""
    return hashlib.sha256(np.sort(ids_as_keys(ids)).tobytes()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
