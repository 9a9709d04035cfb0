"""Repeated spans in the store: found over the kept documents, recorded as parts, left out where texts are trained on.

A near duplicate would make everything in its keeper a repeat, so only documents that near-duplicate detection keeps
are read, in the canonical order (source priority, doc_id), which no delivery changes. The tables hold one state of the
whole corpus; a change of the corpus or of the settings makes them anew.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.config import Config
from winnow.dedup.positions import Positions
from winnow.dedup.spans import KINDS, MEMORY, Found, SpanFinder, SpanPlan, apply_spans, make_span_plan
from winnow.errors import UserError
from winnow.identity import ids_from_numpy, ids_to_numpy
from winnow.store.garbage import keeping_parts
from winnow.store.judgements import all_texts, texts_of
from winnow.store.memory import memory_bytes
from winnow.store.parts import part_writer
from winnow.store.stage import Stage, forget_keys, stage_key
from winnow.store.store import Store, add_parts, load, unlist_parts

MEMORY_SHARE = 4
"""Finding spans holds about so great a part of ``store.memory_limit``: a batch of texts and DuckDB need theirs."""
EXCERPT = 80
KEPT = """
SELECT doc_id, characters, bytes FROM documents
ANTI JOIN (SELECT doc_id FROM duplicates WHERE kind = 'near' AND doc_id <> keeper_id) USING (doc_id)
LEFT JOIN priorities USING (source)
ORDER BY coalesce(priority, 0), doc_id
"""


def kept_documents(store: Store, config: Config) -> pa.Table:
    """Return doc_id, characters and bytes of the documents that count, in the canonical order."""
    sources = {name: source.priority for name, source in config.corpus.sources.items()}
    priorities = pa.table(
        {"source": pa.array(sources.keys(), pa.string()), "priority": pa.array(sources.values(), pa.int64())}
    )
    with store.scratch("documents", "duplicates") as connection:
        load(connection, "priorities", priorities)
        return connection.execute(KEPT).to_arrow_table()


def spans_key(plan: SpanPlan, documents: pa.Table) -> str:
    """Return the key of the stage: the method with its settings, and the documents in their order."""
    return stage_key(
        "spans", plan.version, documents=hashlib.sha256(ids_to_numpy(documents["doc_id"]).tobytes()).hexdigest()
    )


@keeping_parts
def record_spans(store: Store, stage: Stage, plan: SpanPlan, documents: pa.Table) -> None:
    """Find the repeated spans of ``documents`` (from :func:`kept_documents`); write ``spans`` and ``repetition`` anew.

    The texts are read once, and once more for substrings. Without kinds both tables become empty.
    """
    limit = memory_bytes(store.settings.memory_limit)
    memory = MEMORY if limit is None else limit // MEMORY_SHARE
    threads = store.settings.threads or None
    lengths, size = documents["characters"].to_numpy(), int(documents["bytes"].to_numpy().sum())
    ids = ids_to_numpy(documents["doc_id"])
    store.home.scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="spans-", dir=store.home.scratch) as folder,
        part_writer(store.storage, "spans") as spans,
        part_writer(store.storage, "repetition") as repetition,
        SpanFinder(lengths, size, plan, Path(folder), memory, threads) as finder,
    ):
        if plan.kinds:
            positions = Positions(ids)
            for take in (finder.read, finder.compare) if "substrings" in plan.kinds else (finder.read,):
                for texts in texts_of(store, documents):
                    take(texts["text"], positions.order[positions.of(ids_to_numpy(texts["doc_id"]))])
            for found in finder.found():
                spans.add(_span_rows(plan, ids, found))
                repetition.add(_repetition_rows(plan, ids, lengths, found))
        spans.cut()
        repetition.cut()
        with store.write() as connection:
            unlist_parts(connection, "kind IN ('spans', 'repetition')", {})
            add_parts(connection, [*spans.parts, *repetition.parts])
            forget_keys(connection, "spans")
            stage.finish(connection, len(documents) if plan.kinds else 0, output=plan.version, bytes=size)


def _span_rows(plan: SpanPlan, ids: np.ndarray, found: Found) -> pa.Table:
    count = len(found.spans)
    rule = "every_copy" if plan.every_copy else "keep_one"
    return pa.table(
        {
            "doc_id": ids_from_numpy(ids[found.spans["document"].to_numpy()]),
            "rule": pa.array([rule] * count, pa.string()),
            "version": pa.array([plan.version] * count, pa.string()),
            **{name: found.spans[name] for name in ("kind", "span_start", "span_end", "copies")},
        }
    )


def _repetition_rows(plan: SpanPlan, ids: np.ndarray, lengths: np.ndarray, found: Found) -> pa.Table:
    count = found.last - found.first
    return pa.table(
        {
            "doc_id": ids_from_numpy(ids[found.first : found.last]),
            "version": pa.array([plan.version] * count, pa.string()),
            **{f"repeated_{name}": found.counts[kind] for name, kind in KINDS.items()},
            "repeated_share": found.characters / np.maximum(lengths[found.first : found.last], 1),
        }
    )


# -- what was found -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repetition:
    """``kinds`` and ``sources``: share of the characters inside spans; ``top``: units with the most copies.

    The share of a kind counts its spans alone, that of a source every kind once.
    """

    kinds: Mapping[str, float]
    sources: Mapping[str, float]
    top: list[dict[str, Any]]


def summarise(store: Store, top: int = 10) -> Repetition:
    """Return how much repeats, by kind and by source (largest first), and the units that occur most often."""
    with store.scratch("documents", "spans", "repetition") as connection:
        kinds = connection.execute(
            """
            SELECT kind, sum(span_end - span_start)
                   / (SELECT greatest(sum(characters), 1) FROM documents SEMI JOIN repetition USING (doc_id))
            FROM spans GROUP BY kind ORDER BY kind
            """
        ).fetchall()
        sources = connection.execute(
            """
            SELECT source, sum(repeated_share * characters) / greatest(sum(characters), 1) AS share
            FROM repetition JOIN documents USING (doc_id) GROUP BY source ORDER BY share DESC, source
            """
        ).fetchall()
        # One row for each kind, count and length stands for the unit: a unit's content is not stored with its spans.
        units = connection.execute(
            """
            SELECT kind, copies, span_end - span_start AS characters, doc_id, span_start
            FROM spans QUALIFY row_number() OVER (PARTITION BY kind, copies, characters ORDER BY doc_id, span_start) = 1
            ORDER BY copies DESC, characters DESC, kind LIMIT $top
            """,
            {"top": top},
        ).to_arrow_table()
    wanted = pa.table({"doc_id": ids_from_numpy(np.unique(ids_to_numpy(units["doc_id"]), axis=0))})
    texts = dict(zip(*all_texts(store, wanted).to_pydict().values(), strict=True))
    rows = []
    for unit in units.to_pylist():
        start, document = unit.pop("span_start"), unit.pop("doc_id")
        excerpt = texts[document][start : start + min(unit["characters"], EXCERPT)]
        rows.append({**unit, "document": str(document), "excerpt": " ".join(excerpt.split())})
    return Repetition(dict(kinds), dict(sources), rows)


# -- leaving spans out ---------------------------------------------------------------------------------------------


def require_spans(store: Store, config: Config) -> None:
    """Raise :class:`UserError` unless the spans to be left out are those of the present documents and settings."""
    if not config.spans.apply:
        return
    plan = make_span_plan(config.spans)
    if Stage(store, "spans", "", spans_key(plan, kept_documents(store, config))).done is None:
        raise UserError(
            "spans.apply leaves repeated text out of training, but `spans` is of other documents or settings than the "
            "present ones: materialize `spans` first (`winnow run` does)"
        )


def spans_left_out(store: Store, manifest: Mapping[str, Any], documents: pa.Table) -> pa.Table | None:
    """Return doc_id, span_start, span_end that a manifest's settings leave out of ``documents``; None when it has none.

    The spans are those of the manifest's snapshot, whatever the corpus has become since: ``manifest`` is its row.
    """
    names = json.loads(manifest["configuration"]).get("spans", {}).get("apply", [])
    if not names:
        return None
    parts = store.query(
        "SELECT part FROM snapshots WHERE version = $version AND name = 'spans' ORDER BY part",
        {"version": manifest["version"]},
    )
    view = store.view("spans", {"spans": [part for (part,) in parts]})
    with store.scratch() as connection:
        load(connection, "documents", documents.select(["doc_id"]))  # the view shows the rows of these alone
        return connection.execute(
            f"SELECT doc_id, span_start, span_end FROM ({view}) WHERE list_contains($kinds, kind) ORDER BY ALL",  # noqa: S608
            {"kinds": [KINDS[name] for name in names]},
        ).to_arrow_table()


def leave_out(texts: pa.Table, spans: pa.Table) -> pa.Table:
    """Return ``texts`` (doc_id, text) without ``spans`` (doc_id, span_start, span_end); the stored texts stay.

    A text of which only white space is left becomes empty.
    """
    rows = Positions(ids_to_numpy(texts["doc_id"]))
    at = rows.of(ids_to_numpy(spans["doc_id"]))
    inside = at >= 0
    if not inside.any():
        return texts
    row = rows.order[at[inside]]
    places = np.stack([spans[name].to_numpy()[inside] for name in ("span_start", "span_end")], axis=1)
    order = np.argsort(row, kind="stable")
    changed, begins = np.unique(row[order], return_index=True)
    left = []
    for number, cut in zip(changed.tolist(), np.split(places[order], begins[1:]), strict=True):
        text = apply_spans(texts["text"][number].as_py(), map(tuple, cut.tolist()))
        left.append(text if text.strip() else "")
    mask = np.zeros(len(texts), np.bool_)
    mask[changed] = True
    column = texts["text"].cast(pa.large_string()).combine_chunks()
    replaced = pc.replace_with_mask(column, pa.array(mask), pa.array(left, pa.large_string()))
    return texts.set_column(texts.schema.get_field_index("text"), "text", replaced)
