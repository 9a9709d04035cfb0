"""Overlap rows as the store keeps them, under one version."""

from __future__ import annotations

import pyarrow as pa

from winnow.config import Contamination
from winnow.contamination.ngrams import NgramIndex, contaminated, find_overlap
from winnow.identity import digest

OVERLAP_VERSION = "2"
"""Raise it when the method changes: every document is then compared anew."""


def contamination_version(set_digest: str, settings: Contamination) -> str:
    """Return the version of a set's overlap rows: the items, the method and its settings."""
    return digest([OVERLAP_VERSION, set_digest, settings.ngram, settings.min_words])[:16]


def judge(texts: pa.Table, index: NgramIndex, name: str, version: str, settings: Contamination) -> pa.Table:
    """Return the ``contamination`` rows of documents (``doc_id``, ``text``) that share an n-gram with a set."""
    found = find_overlap(texts["text"], index)
    rows = found.drop_columns(["position"]).rename_columns({"start": "span_start", "end": "span_end"})
    return (
        rows.append_column("doc_id", texts["doc_id"].combine_chunks().take(found["position"].combine_chunks()))
        .append_column("evaluation_set", pa.array([name] * len(rows), pa.string()))
        .append_column("version", pa.array([version] * len(rows), pa.string()))
        .append_column("contaminated", pa.array(contaminated(found, index, settings.min_words)))
    )
