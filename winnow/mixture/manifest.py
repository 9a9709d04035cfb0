"""Manifests: the ordered documents to train on, with a digest that stands for what they are and how they were chosen.

The digest is the SHA-256 of

    frame(canonical JSON of {format, configuration, inputs, seed, token_budget})  frame(row 0)  frame(row 1) ...

where ``frame(x)`` is the length of x as a little-endian uint64 followed by x, and a row is ``order`` (int64), the 16
bytes of ``doc_id``, ``tokens`` (int64), ``repeats`` (int32), then source and reason, each as a uint32 length in bytes
and UTF-8. Nothing else enters it: not where a document lies (uri, row), nor paths, times, run ids, snapshots or library
versions, which are recorded beside it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import UUID, canonical_json, ids_as_keys, ids_to_numpy

FORMAT = "winnow-manifest-1"
BATCH_ROWS = 16_384  # rows in memory as Python objects at a time; no part of the digest

ROWS = pa.schema(
    [
        ("order", pa.int64()),
        ("doc_id", UUID),
        ("uri", pa.string()),
        ("row", pa.int64()),
        ("source", pa.string()),
        ("tokens", pa.int64()),
        ("repeats", pa.int32()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Manifest:
    """A version of the training set.

    ``rows`` has the schema ``ROWS`` in training order; ``tokens`` is the sum of tokens x repeats, at most
    ``token_budget``. ``parent`` is the version that this one follows. ``sources`` maps each source to its
    documents, tokens and planned weight. ``configuration`` (semantic settings) and ``inputs`` (digests of corpus,
    reference and checkpoint weights, method versions) enter the digest with the seed, the budget and the rows;
    ``snapshot`` (digests of the store's parts), ``funnel``, ``control`` and ``environment`` are recorded beside it.
    """

    version: str
    digest: str
    parent: str | None
    documents: int
    tokens: int
    token_budget: int
    seed: int
    sources: dict[str, dict[str, Any]]
    configuration: Mapping[str, Any]
    inputs: Mapping[str, Any]
    rows: pa.Table
    snapshot: Sequence[str] = ()
    funnel: Mapping[str, Any] = field(default_factory=dict)
    control: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return everything but the rows, as it stands in ``manifest.json``."""
        return {
            "format": FORMAT,
            "version": self.version,
            "digest": self.digest,
            "parent": self.parent,
            "documents": self.documents,
            "tokens": self.tokens,
            "token_budget": self.token_budget,
            "seed": self.seed,
            "sources": self.sources,
            "configuration": dict(self.configuration),
            "inputs": dict(self.inputs),
            "snapshot": list(self.snapshot),
            "funnel": dict(self.funnel),
            "control": dict(self.control),
            "environment": dict(self.environment),
        }


def build_manifest(
    rows: pa.Table,
    *,
    version: str,
    token_budget: int,
    seed: int,
    configuration: Mapping[str, Any],
    inputs: Mapping[str, Any],
    weights: Mapping[str, float],
    parent: str | None = None,
    snapshot: Sequence[str] = (),
    funnel: Mapping[str, Any] | None = None,
    control: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Manifest:
    """Build a manifest from rows in any order; ``weights`` is each source's planned weight.

    ``rows`` has the columns of ``ROWS`` (others are left out). Raises :class:`UserError`, naming the row, when a column
    is missing or null, the order is not 0 .. n-1, a document occurs twice, a number is out of range or the tokens
    exceed the budget; and when a source has rows but no weight.
    """
    table = _ordered(_conform(rows))
    problems = row_problems([table])
    counted = count_sources([table])
    tokens = sum(entry["tokens"] for entry in counted.values())
    if tokens > token_budget:
        problems.append(f"{tokens:,} tokens, over the budget of {token_budget:,}")
    unplanned = sorted(set(counted) - set(weights))
    if unplanned:
        problems.append(f"source '{unplanned[0]}' has rows, but the mixture gives it no weight")
    if problems:
        raise UserError(f"manifest {version}: {problems[0]}; select the documents again")
    nothing = {"documents": 0, "tokens": 0}
    return Manifest(
        version=version,
        digest=manifest_digest([table], configuration, inputs, seed, token_budget),
        parent=parent,
        documents=table.num_rows,
        tokens=tokens,
        token_budget=token_budget,
        seed=seed,
        sources={name: {**counted.get(name, nothing), "weight": weights[name]} for name in sorted(weights)},
        configuration=configuration,
        inputs=inputs,
        rows=table,
        snapshot=snapshot,
        funnel=funnel or {},
        control=control or {},
        environment=environment or {},
    )


def manifest_digest(
    batches: Iterable[pa.Table | pa.RecordBatch],
    configuration: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seed: int,
    token_budget: int,
) -> str:
    """Return the digest (see the module) of rows in training order, however they are cut into batches."""
    head = {
        "format": FORMAT,
        "configuration": dict(configuration),
        "inputs": dict(inputs),
        "seed": seed,
        "token_budget": token_budget,
    }
    encoded = canonical_json(head).encode()
    hasher = hashlib.sha256(struct.pack("<Q", len(encoded)) + encoded)
    pack = struct.Struct("<Qq16sqiI").pack
    pack_length = struct.Struct("<I").pack
    for part in _slices(batches):
        raw = ids_to_numpy(part.column("doc_id")).tobytes()
        columns = [part.column(name).to_pylist() for name in ("order", "tokens", "repeats", "source", "reason")]
        frames: list[bytes] = []
        for index, (order, tokens, repeats, source, reason) in enumerate(zip(*columns, strict=True)):
            named, why = source.encode(), reason.encode()
            identity = raw[16 * index : 16 * index + 16]
            length = 44 + len(named) + len(why)
            frames += (
                pack(length, order, identity, tokens, repeats, len(named)), named, pack_length(len(why)), why,
            )  # fmt: skip
        hasher.update(b"".join(frames))
    return hasher.hexdigest()


def row_problems(batches: Iterable[pa.Table | pa.RecordBatch]) -> list[str]:
    """Return what is wrong with rows in training order, a sentence each, with the first row it is wrong in."""
    problems: dict[str, str] = {}
    start, identities = 0, []
    for part in _slices(batches):
        nulls = [name for name in ROWS.names if part.column(name).null_count]
        if nulls:
            missing = part.column(nulls[0]).is_null().to_numpy(zero_copy_only=False)
            return [f"rows, row {start + int(np.argmax(missing))}: {nulls[0]} is null"]
        order, tokens, repeats = (part.column(name).to_numpy() for name in ("order", "tokens", "repeats"))
        for kind, wrong, sentence in (
            ("order", order != np.arange(start, start + len(order)), "order is {}, expected {row}"),
            ("tokens", tokens < 0, "tokens is {}, expected 0 or more"),
            ("repeats", repeats < 1, "repeats is {}, expected 1 or more"),
        ):
            if wrong.any() and kind not in problems:
                first = int(np.argmax(wrong))
                value = part.column(kind)[first].as_py()
                problems[kind] = f"rows, row {start + first}: {sentence.format(value, row=start + first)}"
        identities.append(ids_to_numpy(part.column("doc_id")))
        start += len(order)
    if identities:
        keys = ids_as_keys(np.concatenate(identities))
        # Two native integers a document sort many times faster than one structured value.
        by_id = np.lexsort((keys["low"].astype(np.uint64), keys["high"].astype(np.uint64)))
        twice = keys[by_id][1:] == keys[by_id][:-1]
        if twice.any():
            one, two = by_id[int(np.argmax(twice))], by_id[int(np.argmax(twice)) + 1]
            problems["doc_id"] = f"rows, row {two}: document {keys[[two]].tobytes().hex()} is already row {one}"
    return list(problems.values())


def count_sources(batches: Iterable[pa.Table | pa.RecordBatch]) -> dict[str, dict[str, int]]:
    """Return documents and tokens (times repeats) of each source."""
    counted: dict[str, dict[str, int]] = {}
    for part in _slices(batches):
        seen = part.column("tokens").to_numpy() * part.column("repeats").to_numpy()
        names, which = np.unique(np.array(part.column("source").to_pylist(), dtype=object), return_inverse=True)
        for index, name in enumerate(names.tolist()):
            entry = counted.setdefault(name, {"documents": 0, "tokens": 0})
            entry["documents"] += int((which == index).sum())
            entry["tokens"] += int(seen[which == index].sum())
    return counted


@dataclass(frozen=True, eq=False)
class Difference:
    """What changed from manifest a to b.

    ``added`` and ``removed`` are rows (schema ``ROWS``) of b and of a, in training order; ``kept`` counts documents in
    both, ``repeated`` those of them whose repeats changed; ``tokens`` maps each source to its tokens in a and in b.
    """

    added: pa.Table
    removed: pa.Table
    kept: int
    repeated: int
    tokens: dict[str, tuple[int, int]]


def diff_manifests(a: Manifest, b: Manifest) -> Difference:
    """Compare two manifests by document id."""
    keys_a, keys_b = (ids_as_keys(ids_to_numpy(manifest.rows.column("doc_id"))) for manifest in (a, b))
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    only_a, only_b = np.ones(len(keys_a), dtype=bool), np.ones(len(keys_b), dtype=bool)
    only_a[at_a], only_b[at_b] = False, False
    repeats_a, repeats_b = (manifest.rows.column("repeats").to_numpy() for manifest in (a, b))

    def tokens(manifest: Manifest, source: str) -> int:
        return int(manifest.sources.get(source, {}).get("tokens", 0))

    return Difference(
        added=b.rows.filter(pa.array(only_b)),
        removed=a.rows.filter(pa.array(only_a)),
        kept=len(at_a),
        repeated=int((repeats_a[at_a] != repeats_b[at_b]).sum()),
        tokens={name: (tokens(a, name), tokens(b, name)) for name in sorted({*a.sources, *b.sources})},
    )


def _slices(batches: Iterable[pa.Table | pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        yield from table.to_batches(max_chunksize=BATCH_ROWS)


def _conform(rows: pa.Table) -> pa.Table:
    """Return the columns of ``ROWS``, cast to its types."""
    missing = [name for name in ROWS.names if name not in rows.column_names]
    if missing:
        raise UserError(f"manifest rows: no column '{missing[0]}'; expected {', '.join(ROWS.names)}")
    columns = [
        rows.column(wanted.name) if rows.column(wanted.name).type == wanted.type
        else rows.column(wanted.name).cast(wanted.type)
        for wanted in ROWS
    ]  # fmt: skip
    return pa.table(columns, schema=ROWS).combine_chunks()


def _ordered(rows: pa.Table) -> pa.Table:
    order = rows.column("order").to_numpy()
    return rows if (np.diff(order) > 0).all() else rows.take(np.argsort(order, kind="stable"))
